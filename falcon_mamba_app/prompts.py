"""The kinds of a prompt: a conversation, one that goes on, a text to continue, or token ids; and
what a model's tokenizer makes of them.

All other modules import them from `protocol`, whose requests hold them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]
ID_BYTES = 4


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as its author wrote it.

    `packed_ids` are a reply's own ids, 32-bit integers, if they are known: they count wherever
    they still spell the content.
    """

    role: Role
    content: str
    packed_ids: bytes = field(default=b"", compare=False, repr=False)


class Conversation(tuple[Message, ...]):
    """A prompt of messages: the model's own template renders them, and the model answers.

    `template_kwargs` are values of the caller's for the template's variables.
    """

    template_kwargs: Mapping[str, Any] = MappingProxyType({})

    def with_template_kwargs(self, template_kwargs: Mapping[str, Any]) -> Conversation:
        """The same messages, rendered with these values."""
        other = Conversation(self)
        other.template_kwargs = template_kwargs
        return other


@dataclass(frozen=True, slots=True)
class Continuation:
    """A conversation that goes on after a reply of the model.

    `packed_ids` are the ids that were read and written before, as `Finished.packed_ids` told them;
    they are neither rendered nor tokenised again. `messages` came after them.
    """

    packed_ids: bytes  # 32-bit integers of this machine
    messages: Conversation

    def __len__(self) -> int:
        """At least so many tokens: the ids, and one for each message."""
        return len(self.packed_ids) // ID_BYTES + len(self.messages)


class Text(str):
    """A prompt that the model continues, with the special tokens that it spells."""

    __slots__ = ()


class TokenIds(tuple[int, ...]):
    """A prompt that the caller has tokenised."""

    __slots__ = ()


Prompt = Conversation | Continuation | Text | TokenIds


class Tokenizer(Protocol):
    """How the model reads text. Cheap for short texts; long ones belong on a thread."""

    def encode(self, prompt: Prompt) -> list[int]:
        """As a request with this prompt would be read. Raises InvalidRequest."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of all ids, markup included. Raises InvalidRequest for an unknown one."""

    def texts(self, token_ids: Sequence[int]) -> list[str]:
        """Each id's own text."""

    def describe(self) -> dict[str, Any]:
        """Its class, its special tokens and its chat template."""
