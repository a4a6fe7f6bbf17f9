"""What a server says about itself while it is one of several, or about to leave.

The page's cookie names the copy, so that a router can bring the page back to where its events are.
A copy that gets its connections from a parent closes them after each answer of the API, because the
next request may belong to another copy. A server that drains says so at /health/ready, and closes
its connections too: their next requests go elsewhere. An open page learns from the name of the
server's life, at /health, that another process answers it now.
"""

from __future__ import annotations

import secrets
from http.cookies import SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_mamba_app.http.transport import json_response

API = ("/v1", "/tokenize", "/detokenize", "/tokenizer_info", "/load_model", "/metrics", "/health")
READY = "/health/ready"
LIFE, LIVES = "x-server-life", ("/health", "/health/live")
DRAINING = {"status": "draining", "detail": "the server is stopping", "progress": None}


class Departure:
    """Around the whole application. `is_draining` is set by the server's life."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        copy: str | None = None,
        cookie: str = "",
        is_handed: bool = False,
        root_path: str = "",
    ) -> None:
        """`copy` is this one's name, `is_handed` whether a parent hands connections over."""
        self._app, self._copy, self._cookie = app, copy, cookie
        self._is_handed, self._root_path = is_handed, root_path
        self._life = secrets.token_hex(8)
        self.is_draining = False
        self.num_open = 0  # requests of the API that are being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"].removeprefix(self._root_path)
        is_api = any(path == name or path.startswith(f"{name}/") for name in API)
        if self.is_draining and path == READY:
            answer = json_response(DRAINING, status=503, headers={"Connection": "close"})
            await answer(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if path in LIVES:
                    headers[LIFE] = self._life
                if self.is_draining or (is_api and self._is_handed):
                    headers["connection"] = "close"
                if self._copy is not None and not is_api and not self._knows(scope):
                    headers.append("set-cookie", self._set_cookie)
            await send(message)

        self.num_open += is_api
        try:
            await self._app(scope, receive, sending)
        finally:
            self.num_open -= is_api

    def _knows(self, scope: Scope) -> bool:
        """Whether the browser names this copy already."""
        sent = SimpleCookie(Headers(scope=scope).get("cookie", "")).get(self._cookie)
        return sent is not None and sent.value == self._copy

    @property
    def _set_cookie(self) -> str:
        path = self._root_path or "/"
        return f"{self._cookie}={self._copy}; Path={path}; HttpOnly; SameSite=Lax"
