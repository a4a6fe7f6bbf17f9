"""One owner's books in a library, beside their conversations and never among them."""

from __future__ import annotations

from array import array
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from falcon_mamba_app.books.records import Book, book_of
from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.library import Library

BOOKS_OF = "books of "
EVERYBODY = f"{BOOKS_OF}everybody"
MAX_BOOKS = 200


@dataclass(frozen=True, slots=True)
class Bookcase:
    """Whose books, where, and whether they outlive the process."""

    library: Library
    owner: str
    is_lasting: bool

    @property
    def place(self) -> str:
        return f"{BOOKS_OF}owner {self.owner}"

    async def add(self, book: Book, text: str, ids: array[int]) -> None:
        """Keep a new book with its text and its ids."""
        await self.library.create(self.place, id=book.id, title=book.name, extra=book.extra())
        await self.library.append(
            self.place, book.id, parent_id=None, role="user", text=text, token_ids=ids.tobytes()
        )

    async def books(self) -> list[Book]:
        """The newest first."""
        page = await self.library.list(self.place, limit=MAX_BOOKS)
        return sorted(map(book_of, page.conversations), key=lambda book: -book.created_s)

    async def get(self, book_id: str) -> Book:
        """Raises NotFound."""
        return book_of(await self.library.get(self.place, book_id))

    async def put(self, book: Book) -> Book:
        """Keep what has become of it. Raises NotFound where it was deleted."""
        kept = await self.library.change(book.owner, book.id, title=book.name, extra=book.extra())
        return book_of(kept)

    async def delete(self, book_id: str) -> None:
        await self.library.delete(self.place, book_id)


async def contents(library: Library, book: Book) -> tuple[str, array[int]]:
    """The text as it was found in the file, and the ids of all of it."""
    (message,) = await library.path(book.owner, book.id)
    return message.text, array("i", message.token_ids or b"")


async def share(library: Library, book: Book, *, is_shared: bool) -> Book:
    """Show the book to everybody, or to its owner alone again."""
    name = _shared_id(book.id)
    if is_shared and not book.is_shared:
        about: dict[str, Any] = {"book_id": book.id, "owner": book.owner}
        await library.create(EVERYBODY, id=name, title=book.name, extra=about)
    elif book.is_shared and not is_shared:
        with suppress(NotFound):
            await library.delete(EVERYBODY, name)
    shared = replace(book, is_shared=is_shared)
    await library.change(book.owner, book.id, extra=shared.extra())
    return shared


async def shared_books(library: Library) -> list[Book]:
    """The books that anybody may begin from."""
    page = await library.list(EVERYBODY, limit=MAX_BOOKS)
    found = [await _behind(library, entry.extra) for entry in page.conversations]
    return [book for book in found if book is not None]


async def shared_book(library: Library, book_id: str) -> Book:
    """Raises NotFound, unless its owner shares it."""
    entry = await library.get(EVERYBODY, _shared_id(book_id))
    book = await _behind(library, entry.extra)
    if book is None:
        raise NotFound("its owner has deleted this book")
    return book


async def _behind(library: Library, about: Any) -> Book | None:
    try:
        return book_of(await library.get(about["owner"], about["book_id"]))
    except NotFound:
        return None


def _shared_id(book_id: str) -> str:
    return f"shared_{book_id}"
