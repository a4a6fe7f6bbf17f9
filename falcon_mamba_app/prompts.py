"""The kinds of a prompt: a conversation, a text to continue, or token ids.

All other modules import them from `protocol`, whose requests hold them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as its author wrote it."""

    role: Role
    content: str


class Conversation(tuple[Message, ...]):
    """A prompt of messages: the model's own template renders them, and the model answers."""

    __slots__ = ()


class Text(str):
    """A prompt that the model continues, with the special tokens that it spells."""

    __slots__ = ()


class TokenIds(tuple[int, ...]):
    """A prompt that the caller has tokenised."""

    __slots__ = ()


Prompt = Conversation | Text | TokenIds
