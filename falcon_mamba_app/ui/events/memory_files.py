"""Save and open: a conversation with its memory leaves as one file, and comes back as one.

The page asks for a ticket by an event, which knows the page's session; the file then travels over
plain HTTP under that ticket, once. So no address or page ever holds a session's secret.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from falcon_mamba_app.errors import FalconMambaError, InvalidRequest
from falcon_mamba_app.http.refusals import refusal
from falcon_mamba_app.library.exchange import read
from falcon_mamba_app.library.exchange.moving import BroughtIn, take_states
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.ui.conversation.exact_ids import ids_at
from falcon_mamba_app.ui.conversation.memory_file import (
    conversation_of,
    is_saved_state,
    with_conversation,
)
from falcon_mamba_app.ui.conversation.sessions import Busy, Lost, Session, Sessions
from falcon_mamba_app.ui.conversation.shelf import opened, opened_text
from falcon_mamba_app.ui.conversation.tree import Node
from falcon_mamba_app.ui.events.answering import only
from falcon_mamba_app.ui.events.chat_and_document import (
    Updates,
    claim,
    moved,
    page_of,
    streams,
)
from falcon_mamba_app.ui.events.questions import Answer, answers, asked_of
from falcon_mamba_app.ui.events.tickets import Tickets
from falcon_mamba_app.visitors import Visitor, visitor_in

logger = logging.getLogger(__name__)

PATH = "/memory/{ticket}"
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
        self._tickets = Tickets[tuple[str, object]](  # a page, and a message's id
            max_number=MAX_TICKETS, again="save or open", clock=clock
        )

    def add_to(self, app: FastAPI) -> None:
        """Offer the routes; to be called before the page is mounted at "/"."""
        app.add_api_route(PATH, self.save, methods=["GET"], include_in_schema=False)
        app.add_api_route(PATH, self.open, methods=["PUT"], include_in_schema=False)

    @answers
    async def ticket(self, data: gr.EventData, request: gr.Request) -> Answer:
        """For one transfer of the page that asks; `op` comes back, so that the page knows which.
        `id` is of the message whose memory is saved, instead of the newest.
        """
        asked = asked_of(data)
        try:
            session = self.sessions.known(page_of(request))
            claim(self.sessions, session, request)
            session.refuse_if_busy()
        except (Busy, Lost) as error:
            return {"op": asked.get("op"), "problem": str(error)}
        ticket = self._tickets.give((page_of(request), asked.get("id")))
        return {"op": asked.get("op"), "ticket": ticket}

    @streams
    def opened(self, request: gr.Request) -> Updates:
        """Show the conversation that `open` has brought."""
        session = self.sessions.known(page_of(request))
        return only(moved(self._service, session, "Opened, with its memory"))

    async def save(self, request: Request) -> Response:
        """The file of the page's conversation."""
        try:
            page, message_id = self._tickets.take(request.path_params["ticket"])
            session = self.sessions.known(page)
            visitor_in(request.state).count_transfer()
            session.refuse_if_busy()
            node = session.tree.node(message_id) or session.tree.head
            state = await self._service.export_state(session.id, _read_up_to(session, node))
            data = with_conversation(state, session.tree, node)
        except FalconMambaError as error:
            return refusal(error, request.url.path)
        headers = {"Content-Disposition": 'attachment; filename="conversation.safetensors"'}
        return Response(data, headers=headers, media_type="application/octet-stream")

    async def open(self, request: Request) -> Response:
        """Show the conversation of a file on this page, as one of its own beside the old one. Of an
        export (ours, ChatGPT's and others') all are kept, and the first is shown; the answer's
        lines tell how many are in, and the last one what was opened.
        """
        try:
            page, _ = self._tickets.take(request.path_params["ticket"])
            visitor = visitor_in(request.state)
            self.sessions.known(page).refuse_if_busy()
            visitor.count_transfer()
            data = await request.body()
            if is_saved_state(data):
                return JSONResponse(await self._open_state(page, visitor, data, request))
            owner = self.sessions.kept.owner_of(request)
            if owner is None:
                return JSONResponse(await self._open_export(page, visitor, data))
            steps = self.sessions.kept.bring_in(owner, self._service, data)
            first = await anext(steps)  # a file that is none is refused as any other
        except FalconMambaError as error:
            return refusal(error, request.url.path)
        lines = self._brought_in(page, visitor, owner, first, steps)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def _open_state(
        self, page: str, visitor: Visitor, data: bytes, request: Request
    ) -> dict[str, Any]:
        tree = conversation_of(data, max_chars=self._max_chars)
        session = self.sessions.another()
        with visitor.session(session.id):
            num_tokens = await self._service.import_state(session.id, data)
        session.tree = tree
        self.sessions.show(page, session)
        self.sessions.claim(session, visitor, self.sessions.kept.owner_of(request))
        await self.sessions.save(page)
        return {"num_tokens": num_tokens, "num_messages": len(tree.path)}

    async def _open_export(self, page: str, visitor: Visitor, data: bytes) -> dict[str, Any]:
        """For a visitor whose conversations are not kept: the one that the file holds."""
        trees, states = await asyncio.to_thread(read, data)
        if len(trees) > 1:
            raise InvalidRequest(
                f"this file has {len(trees):,} conversations. {self.sessions.kept.notice}, one a"
                " page; open a file of one"
            )
        session = self.sessions.another()
        tree = trees[0].renamed()
        session.tree, session.document = opened(tree), opened_text(tree)
        with visitor.session(session.id):
            num_states, problem = await take_states(self._service, session.id, [*states.values()])
        self.sessions.show(page, session)
        self.sessions.claim(session, visitor)
        return _opened(1, session, num_states, problem)

    async def _brought_in(
        self,
        page: str,
        visitor: Visitor,
        owner: str,
        step: BroughtIn,
        steps: AsyncGenerator[BroughtIn, None],
    ) -> AsyncGenerator[bytes, None]:
        """The answer's lines, while the conversations come in; then the first is shown."""
        try:
            async with aclosing(steps):
                yield _line({"num_done": len(step.conversations), "num_all": step.num_all})
                async for step in steps:
                    yield _line({"num_done": len(step.conversations), "num_all": step.num_all})
            await self.sessions.fetch(step.conversations[0].id, owner)
            session, _ = self.sessions.resume(page, step.conversations[0].id, owner)
            self.sessions.claim(session, visitor, owner)
            told = _opened(len(step.conversations), session, step.num_states, step.problem)
        except FalconMambaError as error:
            told = {"detail": str(error)}
        yield _line(told)


def _read_up_to(session: Session, node: Node | None) -> tuple[int, ...] | None:
    """The ids of the state to save; None for the newest. Raises InvalidRequest."""
    ids = None if node is None else ids_at(session.shelf, node)
    if ids is None and node is not session.tree.head:
        raise InvalidRequest(
            "the tokens up to this reply are not known here, only the newest memory can be saved"
        )
    return ids


def _opened(num: int, session: Session, num_states: int, problem: str) -> dict[str, Any]:
    told = {"num_conversations": num, "num_messages": len(session.tree.path)}
    return {**told, "num_states": num_states, "problem": problem}


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode() + b"\n"
