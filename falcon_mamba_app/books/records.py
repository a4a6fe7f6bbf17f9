"""What is known of a book, and how a library keeps it: a conversation with the text as its one
message, in a place of its own beside the owner's conversations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from falcon_mamba_app.library import ConversationRecord

# "stopped" is a shorter book: what was read until then. "interrupted" may be read to its end.
Status = Literal["reading", "ready", "stopped", "failed", "interrupted"]
USABLE: tuple[Status, ...] = ("ready", "stopped")
NOT_IN_EXTRA = ("id", "owner", "name", "created_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """A book as it was last kept. `num_tokens` counts the whole text's, `num_read` those that its
    state has read.
    """

    id: str
    owner: str  # of the library's rows
    name: str
    created_s: float
    status: Status
    model: str
    kind: str
    sha256: str  # of the text
    num_characters: int
    num_pages: int
    num_tokens: int
    num_read: int = 0
    seconds: float = 0.0  # that reading took
    note: str = ""
    error: str = ""
    is_chat: bool = True  # whether conversations can stand on it
    is_shared: bool = False
    is_lasting: bool = False  # whether it outlives the process
    parts: tuple[str, ...] = ()  # the books that it is a row of, in the order of reading

    @property
    def is_usable(self) -> bool:
        return self.status in USABLE and self.num_read > 0

    @property
    def num_pages_read(self) -> int:
        """About how many, by the share of tokens."""
        return -(-self.num_pages * self.num_read // max(1, self.num_tokens))

    def extra(self) -> dict[str, Any]:
        """What the library keeps beside the name."""
        told = asdict(self)
        return {name: value for name, value in told.items() if name not in NOT_IN_EXTRA}


def book_of(record: ConversationRecord) -> Book:
    """The book that a library's row is."""
    known = {field.name for field in fields(Book)} - set(NOT_IN_EXTRA)
    extra: Mapping[str, Any] = {**record.extra, "parts": tuple(record.extra.get("parts", ()))}
    return Book(
        id=record.id,
        owner=record.owner,
        name=record.title,
        created_s=record.created_s,
        **{name: value for name, value in extra.items() if name in known},
    )
