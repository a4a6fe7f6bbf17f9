"""Books as the page and the API have them: count, read, stop, list, share, delete, stand on.

`keeping` says whose books they are; those of callers without a place in the library are in memory
and go with the process. One book of an owner is read at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from falcon_mamba_app.books import bookcase
from falcon_mamba_app.books.bookcase import MAX_BOOKS, Bookcase
from falcon_mamba_app.books.desk import Desk, Reader
from falcon_mamba_app.books.reading import Progress
from falcon_mamba_app.books.records import Book
from falcon_mamba_app.books.rows import Row, refuse_row, row_of
from falcon_mamba_app.books.standing import Standing, warning
from falcon_mamba_app.documents.limits import Document
from falcon_mamba_app.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    NotReady,
    NotSupported,
    TooManyRequests,
)
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.library import Library
from falcon_mamba_app.library.tree import new_id
from falcon_mamba_app.owners import Asking
from falcon_mamba_app.protocol import GenerationRequest, GenerationService, ModelInfo

MAX_IDS_BYTES = 32 * 2**20  # of the books that were used last: 80 of 100,000 tokens
MAX_IN_MEMORY = 20  # books of one caller without a place in the library
BUSY_RETRY_S = 5


@dataclass(frozen=True, slots=True)
class Counted:
    """A document before anything is spent on it."""

    name: str
    document: Document
    ids: array[int]
    after: int  # the id that follows the book first
    warning: str
    row: Row | None = None  # of which books, where it is several


class Books:
    """All books of one server."""

    def __init__(self, service: GenerationService, keeping: Keeping | None = None) -> None:
        self._service, self._keeping = service, keeping
        self._in_memory: Library | None = None
        self._opening = asyncio.Lock()
        self._desk = Desk(service)
        self._ids: OrderedDict[str, array[int]] = OrderedDict()

    async def case_of(self, asking: Asking, *, nobody: str) -> Bookcase:
        """The caller's books; those of `nobody` where the caller has no place in the library."""
        kept = self._library
        owner = self._keeping.owner_of(asking) if self._keeping is not None else None
        if kept is not None and owner is not None:
            return Bookcase(kept, owner, is_lasting=True)
        async with self._opening:
            self._in_memory = self._in_memory or await Library.open()
        return Bookcase(self._in_memory, nobody, is_lasting=False)

    async def count(self, name: str, document: Document) -> Counted:
        """The document's ids. Raises PromptTooLong, NotReady, NotSupported."""
        standing = await asyncio.to_thread(self._standing)
        ids = await asyncio.to_thread(standing.ids_of, name, document.text)
        after = ids[-1] if standing.closing is None else standing.closing[0]
        told = warning(len(ids), document.num_pages, standing.model)
        return Counted(name, document, ids, after, told)

    async def count_row(self, case: Bookcase, book_ids: Sequence[str]) -> Counted:
        """Several books as one, in this order. Raises NotFound, InvalidRequest, PromptTooLong."""
        row = await self._row(case, book_ids)
        texts = [await self.text(case, book) for book in row.books]
        standing = await asyncio.to_thread(self._standing)
        standing.refuse_too_long(len(row.ids))
        num_pages = sum(book.num_pages_read for book in row.books)
        document = Document("\n\n".join(texts), "books", num_pages)
        after = row.ids[-1] if standing.closing is None else standing.closing[0]
        told = warning(len(row.ids), num_pages, standing.model)
        return Counted(row.name, document, row.ids, after, told, row)

    async def begin(self, case: Bookcase, counted: Counted, reader: Reader) -> Book:
        """Read a new book; returns at once. A text that the owner has already is not read again.

        Raises TooManyRequests, and Conflict while another book of the owner's is being read.
        """
        standing = await asyncio.to_thread(self._standing)
        document, model, row = counted.document, standing.model, counted.row
        digest = hashlib.sha256(_told_apart(counted)).hexdigest()
        books = await self.books(case)
        for known in books:
            is_same = (known.sha256, known.model) == (digest, model.id) and known.status == "ready"
            if is_same and known.owner == case.place:
                return known
        self._refuse_another(case, books)
        book = Book(
            id=new_id("book"),
            owner=case.place,
            name=counted.name,
            created_s=0.0,
            status="reading",
            model=model.id,
            kind=document.kind,
            sha256=digest,
            num_characters=len(document.text),
            num_pages=document.num_pages,
            num_tokens=len(counted.ids),
            num_read=0 if row is None else row.base.num_read,
            note=document.note,
            is_chat=standing.is_chat,
            is_lasting=case.is_lasting,
            parts=() if row is None else row.parts,
        )
        await case.add(book, document.text, counted.ids)
        base = None if row is None else row.base.id
        return await self._desk.read(case, book, counted.ids, counted.after, reader, base=base)

    async def go_on(self, case: Bookcase, book_id: str, reader: Reader) -> Book:
        """Read a book on that was stopped or interrupted, from where its state is."""
        book = await self.own(case, book_id)
        if book.status in ("ready", "reading"):
            return book
        standing = await asyncio.to_thread(self._standing)
        self._refuse_other_model(book, standing.model)
        self._refuse_another(case, await self.books(case))
        _, ids = await bookcase.contents(case.library, book)
        after = ids[-1] if standing.closing is None else standing.closing[0]
        book = replace(book, status="reading", error="")
        return await self._desk.read(case, book, ids, after, reader)

    async def stop(self, case: Bookcase, book_id: str) -> Book:
        """Read no further; what was read so far is a shorter book. Returns it."""
        book = await self.own(case, book_id)
        await self._desk.stop(book.id)
        return await self.own(case, book_id)

    async def books(self, case: Bookcase) -> list[Book]:
        """The owner's, then those that others share."""
        own = [self._now(book) for book in await case.books()]
        shared = await bookcase.shared_books(self._library) if self._library is not None else []
        return own + [book for book in shared if book.owner != case.place]

    async def own(self, case: Bookcase, book_id: str) -> Book:
        """Raises NotFound."""
        return self._now(await case.get(book_id))

    async def find(self, case: Bookcase, book_id: str) -> Book:
        """A book of the owner's or a shared one. Raises NotFound."""
        with suppress(NotFound):
            return await self.own(case, book_id)
        if self._library is not None:
            with suppress(NotFound):
                return await bookcase.shared_book(self._library, book_id)
        raise NotFound(f"there is no book {book_id[:80]!r}; GET /v1/books lists those that are")

    async def text(self, case: Bookcase, book: Book) -> str:
        """The text as it was found in the file."""
        return (await bookcase.contents(self._library_of(case, book), book))[0]

    async def rename(self, case: Bookcase, book_id: str, name: str) -> Book:
        """Another name in lists; the model has read the first one."""
        return self._now(await case.put(replace(await case.get(book_id), name=name)))

    async def share(self, case: Bookcase, book_id: str, *, is_shared: bool) -> Book:
        """Raises InvalidRequest where it is in memory only, or not read yet."""
        book = await self.own(case, book_id)
        if is_shared and not book.is_lasting:
            raise InvalidRequest(
                "only a kept book can be shared; sign in, or let the server keep conversations",
                param="is_shared",
            )
        if is_shared and not book.is_usable:
            raise InvalidRequest(
                f"the book is {book.status}; share it when it is read", param="is_shared"
            )
        return await bookcase.share(case.library, book, is_shared=is_shared)

    async def delete(self, case: Bookcase, book_id: str) -> None:
        """Delete text, ids and state. Conversations that stand on it keep their own states."""
        book = await self.own(case, book_id)
        await self._desk.drop(book.id)
        if book.is_shared:
            await bookcase.share(case.library, book, is_shared=False)
        await case.delete(book.id)
        self._ids.pop(book.id, None)
        with suppress(NotSupported):  # of a server behind this one that has no states
            await asyncio.wrap_future(self._service.forget(book.id))

    async def delete_all(self, case: Bookcase) -> int:
        """Delete all books of the owner; returns how many."""
        own = await case.books()
        for book in own:
            with suppress(NotFound):  # another request was faster
                await self.delete(case, book.id)
        return len(own)

    def progress(self, book: Book) -> Progress | None:
        """How far reading is; None where nobody reads it now."""
        return self._desk.progress(book.id)

    async def on(
        self, case: Bookcase, asked: str | Sequence[str], *requests: GenerationRequest
    ) -> list[GenerationRequest]:
        """The requests, standing on the book, or on several in this order. Raises NotFound,
        InvalidRequest, NotReady.
        """
        names = [asked] if isinstance(asked, str) else asked
        standing = await asyncio.to_thread(self._standing)
        if len(names) == 1:
            book = await self._usable(case, names[0], standing)
            ids = await self._ids_of(case, book)
        else:
            row = await self._row(case, names)
            book, ids = row.base, row.ids
        return [
            replace(request, prompt=standing.prompt_on(ids, request.prompt), begins_from=book.id)
            for request in requests
        ]

    async def _row(self, case: Bookcase, book_ids: Sequence[str]) -> Row:
        refuse_row(book_ids)
        standing = await asyncio.to_thread(self._standing)
        books = [await self._usable(case, book_id, standing) for book_id in book_ids]
        ids = [await self._ids_of(case, book) for book in books]
        return await asyncio.to_thread(row_of, books, ids, await self.books(case), standing)

    async def _usable(self, case: Bookcase, book_id: str, standing: Standing) -> Book:
        """Raises NotFound, and InvalidRequest where nothing can stand on the book."""
        book = await self.find(case, book_id)
        self._refuse_other_model(book, standing.model)
        if not book.is_usable:
            raise InvalidRequest(_unusable(book), param="book")
        return book

    async def close(self) -> None:
        """Stop reading; what was read so far is kept."""
        await self._desk.close()
        if self._in_memory is not None:
            await self._in_memory.close()

    @property
    def _library(self) -> Library | None:
        return None if self._keeping is None else self._keeping.library

    def _library_of(self, case: Bookcase, book: Book) -> Library:
        is_elsewhere = book.is_lasting and not case.is_lasting and self._library is not None
        return self._library if is_elsewhere and self._library is not None else case.library

    def _standing(self) -> Standing:
        return Standing.of(self._service.tokenizer, self._model())

    def _model(self) -> ModelInfo:
        model = self._service.stats().model
        if model is None or self._service.stats().status == "loading":
            raise NotReady("the model is still loading; try again")
        return model

    async def _ids_of(self, case: Bookcase, book: Book) -> array[int]:
        """The ids that the book's state has read; of the last used books from memory."""
        ids = self._ids.get(book.id)
        if ids is None:
            _, ids = await bookcase.contents(self._library_of(case, book), book)
            self._ids[book.id] = ids
            while sum(map(len, self._ids.values())) * 4 > MAX_IDS_BYTES and len(self._ids) > 1:
                self._ids.popitem(last=False)
        self._ids.move_to_end(book.id)
        return ids[: book.num_read]

    def _now(self, book: Book) -> Book:
        """A book whose reader's process has gone was interrupted."""
        if book.status == "reading" and book.id not in self._desk:
            return replace(book, status="interrupted")
        return book

    def _refuse_another(self, case: Bookcase, books: list[Book]) -> None:
        own = [book for book in books if book.owner == case.place]
        if any(book.id in self._desk for book in own):
            raise TooManyRequests(
                "another book of yours is being read; wait for its end, or stop it",
                retry_after_s=BUSY_RETRY_S,
            )
        limit = MAX_BOOKS if case.is_lasting else MAX_IN_MEMORY
        if len(own) >= limit:
            raise Conflict(f"you have {limit} books here, the most that are kept; delete one")

    def _refuse_other_model(self, book: Book, model: ModelInfo) -> None:
        if book.model != model.id:
            raise NotSupported(
                f"the book was read by {book.model}, and this server runs {model.id}; read it"
                " again with this model",
                param="book",
            )


def _told_apart(counted: Counted) -> bytes:
    """What makes it another book: its name and its text; of several also which they are."""
    parts = "" if counted.row is None else f"{counted.row.parts}"
    return f"{parts}{counted.name}\n\n{counted.document.text}".encode()


def _unusable(book: Book) -> str:
    if book.status == "reading":
        return "the book is still being read; wait for its end, or stop it and use what was read"
    return f"the book is {book.status} and nothing of it can be used; read it again"
