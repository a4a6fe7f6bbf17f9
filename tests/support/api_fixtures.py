"""Ways to reach an API under test: in process, or through a real server on the loopback.

Plain functions and context managers; each test module makes its own fixtures of them.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from falcon_mamba_app.middleware.body_limits import BodyLimits
from falcon_mamba_app.middleware.stack import KEEP_ALIVE_S
from falcon_mamba_app.middleware.visitor_limits import VisitorLimits
from falcon_mamba_app.visitors import anybody

USER = {"role": "user", "content": "hello there"}


def with_visitor(app: ASGIApp) -> ASGIApp:
    """An API without its layers as behind the one that tells who asks; a whole app as it is."""
    layers = app.user_middleware if isinstance(app, Starlette) else []
    if any(layer.cls is VisitorLimits for layer in layers):  # type: ignore[comparison-overlap]
        return app

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "state": {**scope.get("state", {}), "visitor": anybody()}}
        await app(scope, receive, send)

    return told


def bounded(app: ASGIApp, *, max_body_bytes: int = 2**24, max_state_bytes: int = 0) -> ASGIApp:
    """An API behind the layer that bounds its bodies, as in the whole app."""
    return BodyLimits(app, max_bytes=max_body_bytes, max_state_bytes=max_state_bytes, timeout_s=10)


@asynccontextmanager
async def in_process(
    app: ASGIApp, *, client: tuple[str, int] = ("127.0.0.1", 123), **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls the application without a socket; replies arrive whole. `client` is the
    address that it calls from.
    """
    transport = httpx.ASGITransport(app=with_visitor(app), client=client)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", **options) as caller:
        yield caller


@asynccontextmanager
async def on_loopback(app: ASGIApp) -> AsyncGenerator[str, None]:
    """Serve the application on a free port of 127.0.0.1; yields its address."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            with_visitor(app),
            log_level="warning",
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


def openai_client(url: str, key: str = "key") -> openai.AsyncOpenAI:
    """OpenAI's own client, which shows the first refusal."""
    return openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)


async def until(is_true: Callable[[], bool], *, deadline_s: float = 60.0) -> None:
    """Return as soon as `is_true`; fail after `deadline_s`."""
    end_s = time.monotonic() + deadline_s
    while not is_true():
        assert time.monotonic() < end_s, "the deadline passed"
        await asyncio.sleep(0.005)


def sse_values(text: str) -> list[Any]:
    """The values of a whole event stream, [DONE] as the string it is; comments are left out."""
    events = [event for event in text.split("\n\n") if event.startswith("data: ")]
    values = [event.removeprefix("data: ") for event in events]
    return [value if value == "[DONE]" else json.loads(value) for value in values]
