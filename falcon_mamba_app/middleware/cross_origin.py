"""Lets web pages of the allowed origins send requests here and read the answers (CORS).

An allowed origin may send any header, like a program: OpenAI's client for browsers sends a dozen of
its own, and no list of them could be kept. Other origins may send and read nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# Named in addition to "*": some browsers read "*" here as the name of a header.
READABLE = ("*", "Retry-After", "X-Request-Id", "Content-Disposition", "WWW-Authenticate")
MAX_NAMES = 100
MAX_NAME_CHARS = 128
_NAME = re.compile(rf"[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{MAX_NAME_CHARS}}}")


def allow_origins(app: FastAPI, origins: Collection[str]) -> None:
    """Open `app` to the origins' pages, and close it to all others.

    It is always installed: if Gradio finds no CORSMiddleware, it answers every site.
    """
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST", "PUT", "DELETE"),
        allow_headers=("*",),  # a preflight gets the names that it asks for
        allow_private_network=True,  # for public pages and a server in a home network
        expose_headers=READABLE,
    )
    app.add_middleware(Preflights)


class Preflights:
    """Refuses preflights whose list of header names is malformed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            asked = Headers(scope=scope).get("access-control-request-headers", "")
            names = [name.strip() for name in asked.split(",") if name.strip()]
            if len(names) > MAX_NAMES or not all(_NAME.fullmatch(name) for name in names):
                refused = (
                    f"Access-Control-Request-Headers may name at most {MAX_NAMES} headers"
                    f" of at most {MAX_NAME_CHARS} characters"
                )
                await PlainTextResponse(refused, 400)(scope, receive, send)
                return
        await self._app(scope, receive, send)
