"""Answers from the first second, with a waiting page and /health, until the app is ready.

Importing torch and Gradio and building the page takes seconds, during which the port should not be
closed. A model in one file may be downloaded meanwhile, for minutes: page and /health say how far
that is. The web server runs `Opening` from the start; it passes all requests on once it has an app.
"""

from __future__ import annotations

import asyncio

from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_mamba_app.errors import NotReady
from falcon_mamba_app.http.refusals import refusal
from falcon_mamba_app.http.transport import json_response
from falcon_mamba_app.middleware.root_path import RootPath
from falcon_mamba_app.middleware.security_headers import SecurityHeaders

WORDS = "the server is starting"  # assets/opening.html looks for them
STARTING = f"{WORDS}; try again in a second"
RETRY_LATER = {"Retry-After": "1"}


class Opening:
    """Stands for an application that is not ready yet."""

    def __init__(self, page: str, *, root_path: str = "") -> None:
        """`page` is the HTML that browsers get meanwhile."""
        self._page = page
        shown = SecurityHeaders(self._wait, root_path=root_path)
        self._waiting: ASGIApp = RootPath(shown, root_path=root_path) if root_path else shown
        self._app: ASGIApp | None = None
        self._share: float | None = None
        self._detail = STARTING
        self._opened = asyncio.Event()

    def tell(self, share: float, what: str) -> None:
        """How far what comes before the app is, from 0 to 1. Any thread may call this."""
        self._share, self._detail = share, f"{WORDS}: {what}"

    def open(self, app: ASGIApp) -> None:
        """Let `app` answer from now on, and begin its lifespan."""
        self._app = app
        self._opened.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await (self._app or self._waiting)(scope, receive, send)

    async def _wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope["path"], scope["method"])(scope, receive, send)

    def _answer(self, path: str, method: str) -> Response:
        if path == "/health/live":  # no restart would help
            return json_response({"status": "live", "detail": self._detail})
        if path in ("/health", "/health/ready"):
            state = {
                "status": "loading", "detail": self._detail, "progress": self._share, "model": None
            }  # fmt: skip
            return json_response(state, status=503, headers=RETRY_LATER)
        if path == "/" and method in ("GET", "HEAD"):
            return HTMLResponse(self._page, headers=RETRY_LATER)
        response = refusal(NotReady(self._detail), path)
        response.headers.update(RETRY_LATER)
        return response

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the web server's lifespan at once; pass it to the app when that is ready."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        ending = asyncio.ensure_future(receive())
        opened = asyncio.ensure_future(self._opened.wait())
        await asyncio.wait((ending, opened), return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if self._app is None:
            await send({"type": "lifespan.shutdown.complete"})
            return
        told: list[Message] = [{"type": "lifespan.startup"}]

        async def receive_next() -> Message:
            return told.pop() if told else await ending

        async def send_on(message: Message) -> None:
            if message["type"] != "lifespan.startup.complete":
                await send(message)

        await self._app(scope, receive_next, send_on)
