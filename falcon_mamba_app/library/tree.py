"""The values of the library: a conversation is a tree of messages, a branch is a named message.

The path from the first message to any other is one telling of the conversation; the head is the
message where it goes on. Nothing is ever overwritten: an edit or another try is a sibling. This
module knows no database.
"""

from __future__ import annotations

import secrets
import sys
import time
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from falcon_mamba_app.errors import NotFound

Role = Literal["system", "user", "assistant"]
# A reply is "writing" until it ends or its process does; "interrupted" is one whose process ended.
Status = Literal["complete", "writing", "stopped", "failed", "interrupted"]


def new_id(kind: str, copy: str | None = None) -> str:
    """An id such as conv_0199…: later ones sort later, and nobody guesses one. Where several copies
    of the server share a library, a router reads at its end which `copy` made it.
    """
    tag = f"-{copy}" if copy else ""
    return f"{kind}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}{tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationRecord:
    """A conversation without its messages. `version` counts its changes, for compare-and-swap.

    `num_tokens` counts what the model wrote in all branches. `extra` is for callers; the library
    keeps it as it is, like `settings`.
    """

    id: str
    owner: str
    title: str = ""
    system_prompt: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    is_pinned: bool = False
    is_archived: bool = False
    created_s: float = 0.0  # since 1970
    updated_s: float = 0.0
    head_id: str | None = None
    version: int = 0
    num_messages: int = 0
    num_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """One message. What is only known of a reply is None elsewhere, and where it is not known.

    `token_ids` are the ids that the model itself wrote, four bytes each (`ids_of`). `num_tokens`
    counts them, `context_tokens` all that was read and written up to the message's end.
    """

    id: str
    conversation_id: str
    parent_id: str | None
    role: Role
    text: str
    created_s: float
    status: Status = "complete"
    token_ids: bytes | None = None
    num_tokens: int | None = None
    context_tokens: int | None = None
    model: str | None = None
    sampling: Mapping[str, Any] | None = None
    finish_reason: str | None = None
    ttft_s: float | None = None
    duration_s: float | None = None
    tokens_per_s: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    generation: str | None = None  # the name under which a reply is being written


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyEnd:
    """What is known of a reply when it is over. `text` None keeps the text of its events."""

    status: Status = "complete"
    text: str | None = None
    token_ids: bytes | None = None
    num_tokens: int | None = None
    context_tokens: int | None = None
    finish_reason: str | None = None
    ttft_s: float | None = None
    duration_s: float | None = None
    tokens_per_s: float | None = None
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BranchRecord:
    """A named message: a moment to come back to."""

    name: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion took along."""

    conversation_ids: tuple[str, ...] = ()
    num_messages: int = 0

    def __len__(self) -> int:
        """How many conversations."""
        return len(self.conversation_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a conversation has become since it was last written. Title and system prompt count for
    a new one only; head and branches are told whole, `removed` messages take all below along.
    """

    conversation_id: str
    title: str = ""
    system_prompt: str = ""
    added: tuple[MessageRecord, ...] = ()  # parents first
    removed: tuple[str, ...] = ()
    head_id: str | None = None
    branches: Mapping[str, str] = field(default_factory=dict)  # name → message


@dataclass(frozen=True, slots=True)
class Page:
    """A page of conversations; `next` is the cursor of the one after it."""

    conversations: tuple[ConversationRecord, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A conversation found by a search: by its title, or by a message that is shown in part."""

    conversation: ConversationRecord
    message_id: str | None
    excerpt: str


@dataclass(frozen=True)
class Tree:
    """A whole conversation. Messages come in the order of their making, parents first."""

    conversation: ConversationRecord
    messages: tuple[MessageRecord, ...]
    branches: tuple[BranchRecord, ...] = ()

    @cached_property
    def by_id(self) -> dict[str, MessageRecord]:
        return {message.id: message for message in self.messages}

    @cached_property
    def children(self) -> dict[str | None, list[MessageRecord]]:
        """The messages below each message; the first ones stand below None."""
        below: dict[str | None, list[MessageRecord]] = {}
        for message in self.messages:
            below.setdefault(message.parent_id, []).append(message)
        return below

    def path(self, message_id: str | None = None) -> list[MessageRecord]:
        """From the first message to this one; to the head without one. Raises NotFound."""
        at = self.conversation.head_id if message_id is None else message_id
        path: list[MessageRecord] = []
        while at is not None:
            if at not in self.by_id:
                raise NotFound(f"this conversation has no message {at!r}")
            path.append(self.by_id[at])
            at = path[-1].parent_id
        return path[::-1]

    def siblings(self, message_id: str) -> tuple[list[MessageRecord], int]:
        """All tries at the message's place, and which of them it is, from 0: ‹ 2/3 ›."""
        if message_id not in self.by_id:
            raise NotFound(f"this conversation has no message {message_id!r}")
        tries = self.children[self.by_id[message_id].parent_id]
        return tries, [one.id for one in tries].index(message_id)

    def renamed(self) -> Tree:
        """The same under new ids of its messages: those of a file may be anybody's."""
        names: dict[str | None, str | None] = {None: None}
        names |= {message.id: new_id("msg") for message in self.messages}
        messages = tuple(
            replace(one, id=str(names[one.id]), parent_id=names[one.parent_id])
            for one in self.messages
        )
        branches = tuple(
            replace(one, message_id=str(names[one.message_id])) for one in self.branches
        )
        head_id = names[self.conversation.head_id]
        return Tree(replace(self.conversation, head_id=head_id), messages, branches)

    @property
    def forks(self) -> list[MessageRecord]:
        """The messages after which the conversation went on in more than one way."""
        return [one for one in self.messages if len(self.children.get(one.id, ())) > 1]

    @property
    def ends(self) -> list[MessageRecord]:
        """The messages that nothing follows: as many tellings there are."""
        return [one for one in self.messages if one.id not in self.children]


def packed_ids(token_ids: Iterable[int]) -> bytes:
    """Token ids as the library keeps them: four bytes each, the lowest first."""
    packed = array("I", token_ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def ids_of(packed: bytes) -> tuple[int, ...]:
    """The token ids in the result of `packed_ids`."""
    token_ids = array("I")
    token_ids.frombytes(packed)
    if sys.byteorder == "big":
        token_ids.byteswap()
    return tuple(token_ids)
