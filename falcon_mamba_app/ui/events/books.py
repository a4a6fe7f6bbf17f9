"""Books on the page: a document is sent, counted and shown, then read, then stood on.

The file travels over plain HTTP under a ticket, as a memory file does; everything else is an event
of the part `book`, whose value says all that the page shows about books.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from falcon_mamba_app.books.bookcase import Bookcase
from falcon_mamba_app.books.books import Books, Counted
from falcon_mamba_app.books.desk import Reader
from falcon_mamba_app.books.records import Book
from falcon_mamba_app.documents.reading import DocumentReader, short_name
from falcon_mamba_app.errors import FalconMambaError, NotFound
from falcon_mamba_app.http.refusals import refusal
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.ui.conversation.begin_turn import sentence_for
from falcon_mamba_app.ui.conversation.session import StandsOn
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.events.chat_and_document import (
    Updates,
    claim,
    moved,
    page_of,
    streams,
    visitor_of,
)
from falcon_mamba_app.ui.events.tickets import Tickets
from falcon_mamba_app.ui.view.updates import Update, status_html
from falcon_mamba_app.visitors import visitor_in

PATH = "/memory/{ticket}/document"
MAX_WAITING = 200  # tickets, and documents that were counted and wait for a word
MAX_LISTED = 50


class BookEvents:
    """`look` asks and answers with the part's value; `act` moves the page onto a book."""

    def __init__(
        self,
        service: GenerationService,
        sessions: Sessions,
        books: Books,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service, self.sessions, self._books = service, sessions, books
        self._documents = DocumentReader()
        self._tickets = Tickets[str](max_number=MAX_WAITING, again="send the document", clock=clock)
        self._counted: OrderedDict[str, Counted] = OrderedDict()  # by page

    def add_to(self, app: FastAPI) -> None:
        """Offer the route; to be called before the page is mounted at "/"."""
        app.add_api_route(PATH, self.take, methods=["PUT"], include_in_schema=False)

    async def look(self, data: gr.EventData, request: gr.Request) -> dict[str, Any]:
        """Do what `op` says, and tell how things are then."""
        asked: dict[str, Any] = data._data if isinstance(data._data, dict) else {}
        op, book_id = asked.get("op"), str(asked.get("id"))
        told: dict[str, Any] = {"op": op, "turn": secrets.token_hex(4)}
        try:
            session = self.sessions.known(page_of(request))
            claim(self.sessions, session, request)
            case = await self._case(request)
            match op:
                case "ticket":
                    told["ticket"] = self._tickets.give(page_of(request))
                case "row":
                    told["counted"] = await self._count_row(case, asked.get("ids"), request)
                case "read":
                    told["book"] = await self._read(case, request)
                case "stop":
                    told["book"] = self._shown(case, await self._books.stop(case, book_id))
                case "poll":
                    told["book"] = self._shown(case, await self._books.own(case, book_id))
                case "delete":
                    await self._books.delete(case, book_id)
                case "share":
                    await self._books.share(case, book_id, is_shared=bool(asked.get("on")))
            if op in ("list", "delete", "share"):
                listed = (await self._books.books(case))[:MAX_LISTED]
                told["books"] = [self._shown(case, book) for book in listed]
        except FalconMambaError as error:
            return {**told, "problem": sentence_for(error)}
        stands = session.book
        told["stands"] = stands and {"name": stands.name, "tokens": stands.num_tokens}
        return told

    @streams
    def act(self, data: gr.EventData, request: gr.Request) -> Updates:
        """Begin a conversation that stands on the book `id`."""
        asked = data._data if isinstance(data._data, dict) else {}
        return self._stand(str(asked.get("id")), request)

    async def take(self, request: Request) -> Response:
        """Read the file into words and count them; nothing else is spent."""
        try:
            page = self._tickets.take(request.path_params["ticket"])
            visitor_in(request.state).count_transfer()
            name = short_name(request.query_params.get("name", ""))
            document = await self._documents.read(name, await request.body())
            counted = await self._books.count(name, document)
        except FalconMambaError as error:
            return refusal(error, request.url.path)
        return JSONResponse(self._wait_for_a_word(page, counted))

    async def _count_row(self, case: Bookcase, ids: Any, request: gr.Request) -> dict[str, Any]:
        """Books that are to be read in a row, before anything is spent."""
        named = [str(book_id) for book_id in ids] if isinstance(ids, list) else []
        counted = await self._books.count_row(case, named)
        return self._wait_for_a_word(page_of(request), counted)

    def _wait_for_a_word(self, page: str, counted: Counted) -> dict[str, Any]:
        """Keep what was counted until somebody says read, and tell what it is."""
        self._counted[page] = counted
        while len(self._counted) > MAX_WAITING:
            self._counted.popitem(last=False)
        row = counted.row
        return {
            "name": counted.name,
            "pages": counted.document.num_pages,
            "tokens": len(counted.ids),
            "known": 0 if row is None else row.base.num_read,
            "warning": counted.warning,
            "note": counted.document.note,
        }

    async def remove_all(self, request: Any) -> int:
        """Delete the books of who asks, and what was sent and not read yet; how many books."""
        self._counted.pop(page_of(request), None)
        return await self._books.delete_all(await self._case(request))

    async def _read(self, case: Bookcase, request: gr.Request) -> dict[str, Any]:
        counted = self._counted.pop(page_of(request), None)
        if counted is None:
            raise NotFound("the document is no longer here; send it once more")
        visitor = visitor_of(request)
        reader = Reader(visitor.line(None), visitor.weight, visitor.count_tokens)
        return self._shown(case, await self._books.begin(case, counted, reader))

    async def _stand(self, book_id: str, request: gr.Request) -> Updates:
        page, session = page_of(request), self.sessions.known(page_of(request))
        session.refuse_if_busy()
        case = await self._case(request)
        try:
            book = await self._books.find(case, book_id)
        except FalconMambaError as error:
            yield Update(status=status_html(sentence_for(error), phase="failed"))
            return
        if session.tree.head is not None or session.book is not None:
            session = self.sessions.clear(page)
        claim(self.sessions, session, request)
        session.book = StandsOn(book.id, book.name, book.num_read, self._books, case)
        yield moved(self._service, session, "Ready", composer="")

    async def _case(self, request: gr.Request) -> Bookcase:
        return await self._books.case_of(request, nobody=f"page {page_of(request)}")

    def _shown(self, case: Bookcase, book: Book) -> dict[str, Any]:
        progress = self._books.progress(book)
        return {
            "id": book.id,
            "name": book.name,
            "status": book.status,
            "error": book.error,
            "tokens": book.num_tokens,
            "read": book.num_read if progress is None else progress.num_read,
            "pages": book.num_pages,
            "rate": None if progress is None else round(progress.tokens_per_s),
            "left_s": None if progress is None else progress.seconds_left,
            "usable": book.is_usable,
            "own": book.owner == case.place,
            "shared": book.is_shared,
            "lasting": book.is_lasting,
        }
