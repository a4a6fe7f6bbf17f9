"""What web pages of the allowed origins may send here, and what they may read of the answers.

An allowed origin is as free as a program: OpenAI's client for browsers sends a dozen headers of its
own, of which nobody here keeps a list. Other origins may send and read nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# Named too: a browser that does not know "*" here reads it as a header's name.
READABLE = ("*", "Retry-After", "X-Request-Id", "Content-Disposition", "WWW-Authenticate")
MAX_NAMES = 100
MAX_NAME_CHARS = 128
_NAME = re.compile(rf"[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{MAX_NAME_CHARS}}}")


def allow_origins(app: FastAPI, origins: Collection[str]) -> None:
    """Open `app` to the origins' pages, and close it to all others.

    Always there: where it finds no CORSMiddleware, that very class, Gradio answers every site.
    """
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST", "PUT", "DELETE"),
        allow_headers=("*",),  # a preflight is answered with the names that it asked for
        allow_private_network=True,  # a page of the web may reach this server at home
        expose_headers=READABLE,
    )
    app.add_middleware(Preflights)


class Preflights:
    """Refuses to repeat what is no list of headers' names."""

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
