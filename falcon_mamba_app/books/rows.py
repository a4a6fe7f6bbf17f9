"""Several books in a row: each is read after those before it, so another order is another state.

A row can be a book of its own, which was read once as any other; until then, conversations on it
begin from the book in it that spares the most reading.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from falcon_mamba_app.books.records import Book
from falcon_mamba_app.books.standing import Standing
from falcon_mamba_app.errors import InvalidRequest

MAX_IN_A_ROW = 8
BETWEEN = ", then "


@dataclass(frozen=True, slots=True)
class Row:
    """Books in their order, the ids of all, and the book whose state has read most of them."""

    books: tuple[Book, ...]
    ids: array[int]
    base: Book

    @property
    def name(self) -> str:
        return BETWEEN.join(book.name for book in self.books)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(book.id for book in self.books)


def refuse_row(book_ids: Sequence[str]) -> None:
    """Raises InvalidRequest for no row of different books."""
    if not 1 < len(book_ids) <= MAX_IN_A_ROW or len(set(book_ids)) < len(book_ids):
        raise InvalidRequest(
            f"{len(book_ids)} books were named; a row has 2 to {MAX_IN_A_ROW}, each of them once",
            param="book",
        )


def row_of(
    books: Sequence[Book], ids: Sequence[array[int]], others: Sequence[Book], standing: Standing
) -> Row:
    """The row. `others` are the books that may have been read as a beginning of it."""
    whole = ids[0]
    for later in ids[1:]:
        whole = standing.joined(whole, later)
    parts = tuple(book.id for book in books)
    begun = [
        other
        for other in others
        if other.parts and other.status == "ready" and parts[: len(other.parts)] == other.parts
    ]
    base = max(begun, key=lambda book: len(book.parts), default=books[0])
    return Row(tuple(books), whole, base)
