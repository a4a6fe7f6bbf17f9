"""Books over HTTP: read a document once, and begin any number of conversations from it.

A document comes as a file of a form, or as text in JSON; several books in a row are one too. With
`dry_run` it is only counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from falcon_mamba_app.api.fields import Cleaner
from falcon_mamba_app.api.names import ready_model
from falcon_mamba_app.api.planning import Plan
from falcon_mamba_app.api.reading import BodyReader, form_of_file
from falcon_mamba_app.api.schemas import Strict
from falcon_mamba_app.books.bookcase import Bookcase
from falcon_mamba_app.books.books import Books, Counted
from falcon_mamba_app.books.desk import Reader
from falcon_mamba_app.books.records import Book
from falcon_mamba_app.books.rows import MAX_IN_A_ROW
from falcon_mamba_app.books.standing import warning
from falcon_mamba_app.documents.limits import Document
from falcon_mamba_app.documents.reading import DocumentReader, short_name
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.http.transport import json_response
from falcon_mamba_app.owners import Asking
from falcon_mamba_app.protocol import GenerationRequest, GenerationService
from falcon_mamba_app.visitors import Visitor, visitor_in

Json = dict[str, Any]
Endpoint = Callable[[Request], Awaitable[Response]]
BookIds = str | list[str]
Name = Annotated[str, Field(min_length=1, max_length=200)]
YES = ("true", "1", "yes", "on")
OR_TEXT = ", or JSON with name and text"


class _Body(Strict):
    @classmethod
    def cleaned(cls, body: Json) -> Json:
        return Cleaner({}, own=cls.model_fields.keys()).clean(body)


class NewBook(_Body):
    """The body of POST /v1/books, unless it is a form with a file: a text, or several books to read
    in a row.
    """

    text: str | None = None
    books: Annotated[list[Name], Field(min_length=1, max_length=MAX_IN_A_ROW)] | None = None
    name: Name | None = None
    dry_run: bool = False


class BookChanges(_Body):
    """The body of POST /v1/books/{id}; what is left out stays."""

    name: Name | None = None
    is_shared: bool | None = None


class BookShelf:
    """The endpoints of /v1/books, and the `book` of a request that generates."""

    def __init__(self, service: GenerationService, books: Books, reader: BodyReader) -> None:
        self._service, self._books, self._reader = service, books, reader
        self._documents = DocumentReader()

    def add_to(self, add: Callable[[str, str, Endpoint], None]) -> None:
        """Add all endpoints."""
        add("GET", "/v1/books", self.listed)
        add("POST", "/v1/books", self.create)
        one = "/v1/books/{book_id}"
        add("GET", one, self.retrieve)
        add("POST", one, self.change)
        add("DELETE", one, self.delete)
        add("GET", f"{one}/text", self.text)
        add("POST", f"{one}/cancel", self.cancel)
        add("POST", f"{one}/resume", self.resume)

    async def create(self, request: Request) -> Response:
        """POST /v1/books: count the document, and read it unless `dry_run` says not to."""
        ready_model(self._service)
        visitor: Visitor = request.state.visitor
        counted, is_dry = await self._count(request)
        if is_dry:
            return json_response(self._counted(counted))
        visitor.count_transfer()
        book = await self._books.begin(await self._case(request), counted, _reader(visitor))
        return json_response(await self._told(request, book))

    async def listed(self, request: Request) -> Response:
        """GET /v1/books: one's own, then those that others share."""
        case = await self._case(request)
        data = [self._book(case, book) for book in await self._books.books(case)]
        return json_response({"object": "list", "data": data})

    async def retrieve(self, request: Request) -> Response:
        """GET /v1/books/{id}."""
        return json_response(await self._told(request, await self._found(request)))

    async def text(self, request: Request) -> Response:
        """GET /v1/books/{id}/text: what was found in the file."""
        book = await self._found(request)
        return PlainTextResponse(await self._books.text(await self._case(request), book))

    async def change(self, request: Request) -> Response:
        """POST /v1/books/{id}: its name, and whether everybody may begin from it."""
        body, case = await self._reader.read(request, BookChanges), await self._case(request)
        book_id = request.path_params["book_id"]
        book = await self._books.own(case, book_id)
        if body.name is not None:
            book = await self._books.rename(case, book_id, body.name)
        if body.is_shared is not None:
            book = await self._books.share(case, book_id, is_shared=body.is_shared)
        return json_response(self._book(case, book))

    async def cancel(self, request: Request) -> Response:
        """POST /v1/books/{id}/cancel: what was read so far is a shorter book."""
        case = await self._case(request)
        book = await self._books.stop(case, request.path_params["book_id"])
        return json_response(self._book(case, book))

    async def resume(self, request: Request) -> Response:
        """POST /v1/books/{id}/resume: read a stopped or interrupted book on."""
        ready_model(self._service)
        case, visitor = await self._case(request), request.state.visitor
        visitor.count_transfer()
        book = await self._books.go_on(case, request.path_params["book_id"], _reader(visitor))
        return json_response(self._book(case, book))

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/books/{id}."""
        book_id = request.path_params["book_id"]
        await self._books.delete(await self._case(request), book_id)
        return json_response({"id": book_id, "object": "book", "deleted": True})

    async def remove_all(self, request: Asking) -> int:
        """Delete the caller's books; how many they were."""
        nobody = visitor_in(request.state).owner
        return await self._books.delete_all(await self._books.case_of(request, nobody=nobody))

    async def plan_on(self, request: Request, plan: Plan, named: BookIds | None) -> Plan:
        """The same replies, standing on the books that the body names. Raises NotFound."""
        if named is None:
            return plan
        asked = [reply.request for reply in plan.replies]
        standing = await self._books.on(await self._case(request), named, *asked)
        replies = tuple(
            replace(reply, request=one) for reply, one in zip(plan.replies, standing, strict=True)
        )
        return replace(plan, replies=replies)

    async def request_on(
        self, request: Request, asked: GenerationRequest, named: BookIds | None
    ) -> GenerationRequest:
        """The same for one reply."""
        if named is None:
            return asked
        return (await self._books.on(await self._case(request), named, asked))[0]

    async def named_in(self, request: Request) -> str | None:
        """The id of the book that the query names. Raises NotFound."""
        book_id = request.query_params.get("book")
        if book_id is None:
            return None
        return (await self._books.find(await self._case(request), book_id)).id

    async def _case(self, request: Request) -> Bookcase:
        return await self._books.case_of(request, nobody=request.state.visitor.owner)

    async def _found(self, request: Request) -> Book:
        case = await self._case(request)
        return await self._books.find(case, request.path_params["book_id"])

    async def _count(self, request: Request) -> tuple[Counted, bool]:
        """The document, and whether it is only to be counted. Raises InvalidRequest."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            body = await self._reader.read(request, NewBook)
            return await self._count_body(request, body), body.dry_run
        name, document, is_dry = await self._document(request)
        return await self._books.count(name, document), is_dry

    async def _count_body(self, request: Request, body: NewBook) -> Counted:
        if (body.text is None) == (body.books is None):
            raise InvalidRequest(
                "send either text, or the ids of books to read in a row", param="text"
            )
        if body.books is None:
            document = await self._documents.read_text(body.text or "")
            return await self._books.count(short_name(body.name or "A text"), document)
        counted = await self._books.count_row(await self._case(request), body.books)
        return replace(counted, name=short_name(body.name or counted.name))

    async def _document(self, request: Request) -> tuple[str, Document, bool]:
        """Name, document, and whether it is only to be counted. Raises InvalidRequest."""
        async with form_of_file(request, OR_TEXT) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise InvalidRequest("the form has no file; its field is named file", param="file")
            name = str(form.get("name") or file.filename or "document")
            is_dry = str(form.get("dry_run") or "").lower() in YES
            document = await self._documents.read(file.filename or name, await file.read())
        return short_name(name), document, is_dry

    async def _told(self, request: Request, book: Book) -> Json:
        return self._book(await self._case(request), book)

    def _counted(self, counted: Counted) -> Json:
        document, model = counted.document, ready_model(self._service)
        return {
            "object": "book",
            "id": None,
            "name": counted.name,
            "status": "counted",
            "model": model.id,
            "kind": document.kind,
            "characters": len(document.text),
            "pages": document.num_pages,
            "tokens": len(counted.ids),
            "warning": counted.warning or None,
            "note": document.note or None,
            "beginning": document.text[:500],
        }

    def _book(self, case: Bookcase, book: Book) -> Json:
        """The book as it is told; texts and ids are not."""
        progress, model = self._books.progress(book), self._service.stats().model
        num_read = book.num_read if progress is None else progress.num_read
        about = replace(book, num_read=num_read)
        told: Json = {
            "id": book.id,
            "object": "book",
            "name": book.name,
            "status": book.status,
            "model": book.model,
            "kind": book.kind,
            "books": list(book.parts) or None,
            "sha256": book.sha256,
            "characters": book.num_characters,
            "pages": book.num_pages,
            "pages_read": about.num_pages_read,
            "tokens": book.num_read if book.status == "stopped" else book.num_tokens,
            "tokens_in_text": book.num_tokens,
            "tokens_read": num_read,
            "progress": num_read / max(1, book.num_tokens),
            "tokens_per_s": None,
            "seconds_left": None,
            "seconds": book.seconds,
            "warning": None if model is None else warning(num_read, book.num_pages, model) or None,
            "note": book.note or None,
            "error": book.error or None,
            "is_own": book.owner == case.place,
            "is_shared": book.is_shared,
            "outlives_the_process": book.is_lasting,
            "created_at": int(book.created_s),
        }
        if progress is not None:
            told |= {
                "tokens_per_s": round(progress.tokens_per_s, 1),
                "seconds_left": progress.seconds_left,
                "seconds": book.seconds + progress.seconds,
            }
        if model is not None and model.state_bytes and model.kv_bytes_per_token:
            told["state_bytes"] = model.state_bytes
            told["kv_cache_bytes"] = model.kv_bytes_per_token * num_read
        return told


def _reader(visitor: Visitor) -> Reader:
    return Reader(visitor.line(None), visitor.weight, visitor.count_tokens)
