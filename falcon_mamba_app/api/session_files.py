"""The library's sessions as files: one out, in four formats; one or thousands in, of six kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app.api.kept_sessions import KeptSessions
from falcon_mamba_app.api.responses.shelf import Shelves
from falcon_mamba_app.errors import FalconMambaError, InvalidRequest
from falcon_mamba_app.http.errors import error_body
from falcon_mamba_app.http.transport import EventStream, json_response, read_body, sse_event
from falcon_mamba_app.library.exchange import as_json, as_jsonl, as_markdown, bundle
from falcon_mamba_app.library.exchange.moving import BroughtIn, bring_in, moments, states_of
from falcon_mamba_app.library.tree import Tree
from falcon_mamba_app.protocol import GenerationService

KINDS = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "markdown": "text/markdown; charset=utf-8",
    "zip": "application/zip",
}
ENDINGS = {"json": "json", "jsonl": "jsonl", "markdown": "md", "zip": "falcon.zip"}


class SessionFiles:
    """Export and import over the visitors' shelves."""

    def __init__(
        self,
        service: GenerationService,
        shelves: Shelves,
        kept: KeptSessions,
        *,
        max_state_bytes: int,
    ) -> None:
        self._service, self._shelves, self._kept = service, shelves, kept
        self._max_state_bytes = max_state_bytes

    async def export(self, request: Request) -> Response:
        """GET /v1/sessions/{id}/export: the session as a file; `format` is json (the whole tree),
        jsonl (OpenAI's messages up to the head), markdown, or zip (the tree with its states).
        """
        request.state.visitor.count_transfer()
        kind = request.query_params.get("format", "json")
        if kind not in KINDS:
            raise InvalidRequest(
                f"format is {kind[:40]!r}; allowed are {', '.join(KINDS)}", param="format"
            )
        owner, session_id = await self._shelves.of(request), request.path_params["session_id"]
        tree = await owner.shelf.library.tree(owner.name, session_id)
        states: dict[str, bytes] = {}
        if kind == "zip":
            states = await states_of(
                self._service,
                session_id,
                moments(tree),
                partial(self._kept.ids_at, request, session_id),
                max_bytes=self._max_state_bytes,
            )
        data = await asyncio.to_thread(_written, tree, kind, states)
        name = f'attachment; filename="conversation.{ENDINGS[kind]}"'
        return Response(data, media_type=KINDS[kind], headers={"Content-Disposition": name})

    async def take_in(self, request: Request) -> Response:
        """POST /v1/sessions/import: the body is a file of this app, of OpenAI's messages, ShareGPT,
        Open WebUI or ChatGPT; answers the new sessions. With `stream=true` the answer is a stream
        of how many are there, and at its end the sessions.
        """
        request.state.visitor.count_transfer()
        owner = await self._shelves.of(request)
        data = await read_body(request)
        brought = bring_in(owner.shelf.library, owner.name, self._service, data)
        try:
            first = await anext(brought)  # a file that is none is refused as any request is
        except BaseException:
            await brought.aclose()
            raise
        if request.query_params.get("stream") in ("true", "1"):
            return EventStream(_told(first, brought), closes=brought)
        async with aclosing(brought):
            *_, last = first, *[one async for one in brought]
        return json_response(_sessions(last))


async def _told(
    first: BroughtIn, brought: AsyncGenerator[BroughtIn, None]
) -> AsyncGenerator[bytes, None]:
    """The progress, then the sessions."""
    yield sse_event(_progress(first))
    try:
        async for first in brought:
            yield sse_event(_progress(first))
        yield sse_event(_sessions(first))
    except FalconMambaError as error:
        yield sse_event(error_body(error))
    yield b"data: [DONE]\n\n"


def _progress(brought: BroughtIn) -> dict[str, Any]:
    done, of = len(brought.conversations), brought.num_all
    return {"object": "session.import", "num_done": done, "num_all": of}


def _sessions(brought: BroughtIn) -> dict[str, Any]:
    made = brought.conversations
    data = [{"id": one.id, "object": "session", "title": one.title} for one in made]
    states = {"num_states": brought.num_states, "states_problem": brought.problem or None}
    return {"object": "list", "data": data, **states}


def _written(tree: Tree, kind: str, states: dict[str, bytes]) -> bytes:
    if kind == "zip":
        return bundle(tree, states)
    if kind == "jsonl":
        return as_jsonl([tree]).encode()
    return (as_json(tree) if kind == "json" else as_markdown(tree)).encode()
