"""Reads bodies, writes JSON and server-sent events, and notices readers that leave.

It knows HTTP through Starlette, but not the contents of bodies. When a reader leaves, the work for
it ends, streamed or not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from falcon_mamba_app.http.encodings import expanded
from falcon_mamba_app.http.errors import WrongContentType

Result = TypeVar("Result")


class ReaderGone(Exception):
    """The client has closed the connection, so there is no one to answer."""


def to_json(value: Any) -> bytes:
    """JSON in UTF-8 on one line, by any definition of a line's end.

    Several clients split an event stream at U+0085, U+2028 and U+2029 too, so these are escaped.
    A lone surrogate becomes its JSON escape.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(character, escape)
    return text.encode("utf-8", "backslashreplace")


def json_response(
    value: Any, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """`value` as the whole answer."""
    return Response(to_json(value), status, headers, "application/json")


def sse_event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + to_json(value) + b"\n\n"


def named_sse_event(name: str, value: Any) -> bytes:
    """One server-sent event with a name."""
    return b"event: " + name.encode() + b"\n" + sse_event(value)


class EventStream(StreamingResponse):
    """Server-sent events. Closes `lines`, and `closes` under them, when the reader has gone.

    Both are named because a generator that never started cannot close its own source.
    """

    def __init__(
        self, lines: AsyncGenerator[bytes, None], *, closes: AsyncGenerator[Any, None]
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(lines, headers=headers, media_type="text/event-stream")
        self._lines = lines
        self._closes = closes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._closes), aclosing(self._lines):
            await super().__call__(scope, receive, send)


async def read_body(request: Request) -> bytes:
    """The whole body, whose length the middleware bounds. Raises ReaderGone.

    The request keeps no copy: the answer may take minutes.
    """
    try:
        return b"".join([part async for part in request.stream()])
    except ClientDisconnect:
        raise ReaderGone from None


async def read_json_body(request: Request) -> bytes:
    """The body of a request that says it is JSON, without its compression.

    Raises WrongContentType otherwise: a web page elsewhere can send any other type from its
    visitor's browser without asking.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise WrongContentType("send the body with the header Content-Type: application/json")
    return await expanded(await read_body(request), request.headers.get("content-encoding", ""))


async def while_read(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`. Cancels it and raises ReaderGone if the client leaves first."""
    task = asyncio.create_task(work)
    leaving = asyncio.create_task(_reader_leaves(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ReaderGone
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)
        # A refusal's traceback holds this frame, and the task holds the refusal: drop the task, or
        # the cycle keeps the body alive.
        del task, leaving


async def _reader_leaves(request: Request) -> None:
    """Return when the client has closed the connection. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
