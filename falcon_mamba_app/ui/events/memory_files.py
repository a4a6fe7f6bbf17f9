"""Save and open: a conversation with its memory leaves as one file, and comes back as one.

The page asks for a ticket by an event, which knows the page's session; the file then travels over
plain HTTP under that ticket, once. So no address or page ever holds a session's secret.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from falcon_mamba_app.errors import FalconMambaError, NotFound
from falcon_mamba_app.http.refusals import refusal
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.ui.conversation.memory_file import conversation_of, with_conversation
from falcon_mamba_app.ui.conversation.sessions import Busy, Lost, Sessions
from falcon_mamba_app.ui.events.answering import only
from falcon_mamba_app.ui.events.chat_and_document import (
    Updates,
    claim,
    moved,
    page_of,
    streams,
)
from falcon_mamba_app.visitors import visitor_in

logger = logging.getLogger(__name__)

PATH = "/memory/{ticket}"
TICKET_S = 120.0
MAX_TICKETS = 1_000


class MemoryFiles:
    """The two routes, and the event that gives tickets for them."""

    def __init__(
        self,
        service: GenerationService,
        sessions: Sessions,
        *,
        max_chars: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service, self.sessions, self._max_chars = service, sessions, max_chars
        self._clock = clock
        self._tickets: OrderedDict[str, tuple[str, float]] = OrderedDict()  # page, end

    def add_to(self, app: FastAPI) -> None:
        """Offer the routes; to be called before the page is mounted at "/"."""
        app.add_api_route(PATH, self.save, methods=["GET"], include_in_schema=False)
        app.add_api_route(PATH, self.open, methods=["PUT"], include_in_schema=False)

    async def ticket(self, data: gr.EventData, request: gr.Request) -> dict[str, Any]:
        """For one transfer of the page that asks; `op` comes back, so that the page knows which."""
        op = data._data.get("op") if isinstance(data._data, dict) else None
        try:
            session = self.sessions.known(page_of(request))
            claim(self.sessions, session, request)
            session.refuse_if_busy()
        except (Busy, Lost) as error:
            return {"op": op, "problem": str(error)}
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = page_of(request), self._clock() + TICKET_S
        while len(self._tickets) > MAX_TICKETS:
            self._tickets.popitem(last=False)
        return {"op": op, "ticket": ticket}

    @streams
    def opened(self, request: gr.Request) -> Updates:
        """Show the conversation that `open` has brought."""
        session = self.sessions.known(page_of(request))
        return only(moved(self._service, session, "Opened, with its memory"))

    async def save(self, request: Request) -> Response:
        """The file of the page's conversation."""
        try:
            session = self.sessions.known(self._page(request))
            visitor_in(request.state).count_transfer()
            session.refuse_if_busy()
            state = await self._service.export_state(session.id)
            data = with_conversation(state, session.tree)
        except FalconMambaError as error:
            return refusal(error, request.url.path)
        headers = {"Content-Disposition": 'attachment; filename="conversation.safetensors"'}
        return Response(data, headers=headers, media_type="application/octet-stream")

    async def open(self, request: Request) -> Response:
        """Show the conversation of a file on this page, as one of its own beside the old one."""
        try:
            page, visitor = self._page(request), visitor_in(request.state)
            self.sessions.known(page).refuse_if_busy()
            visitor.count_transfer()
            data = await request.body()
            tree = conversation_of(data, max_chars=self._max_chars)
            session = self.sessions.another()
            with visitor.session(session.id):
                num_tokens = await self._service.import_state(session.id, data)
            session.tree = tree
            self.sessions.show(page, session)
            owner = self.sessions.kept.owner_of(request)
            self.sessions.claim(session, visitor, owner)
            await self.sessions.save(page)
        except FalconMambaError as error:
            return refusal(error, request.url.path)
        return JSONResponse({"num_tokens": num_tokens, "num_messages": len(tree.path)})

    def _page(self, request: Request) -> str:
        """Whose ticket it is; it is void afterwards. Raises NotFound."""
        page, end_s = self._tickets.pop(request.path_params["ticket"], ("", 0.0))
        if self._clock() >= end_s:
            raise NotFound("this address is no longer valid; save or open once more")
        return page
