"""Offers only the part of Gradio that this page needs.

Gradio also brings uploads, a file server, a proxy for other hosts, media streams, run history and
monitoring. The page does not use them, and a path that does not answer cannot leak anything.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.http.refusals import refusal

PAGE = frozenset(
    (
        *("", "assets", "lab", "memory", "scripts", "static", "svelte"),
        *("config", "theme.css", "favicon.ico"),
    )
)
PAGE_EXTRAS = frozenset(("robots.txt", "manifest.json", "pwa_icon"))
SERVICE = frozenset(
    (
        *("v1", "health", "metrics", "login", "logout"),
        *("tokenize", "detokenize", "tokenizer_info", "load_model"),
    )
)
GRADIO_API = frozenset(
    (
        "api",
        "app_id",
        "call",
        "cancel",
        "heartbeat",
        "info",
        "openapi.json",
        "queue",
        "reset",
        "run",
        "startup-events",
        "theme.css",
    )
)
FIRST_PARTS = PAGE | PAGE_EXTRAS | SERVICE


class AllowedPaths:
    """Answers 404 for every path whose first part is not named above."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_offered(scope["path"]):
            error = NotFound("there is no such page here")
            await refusal(error, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_offered(path: str) -> bool:
    """Whether the server offers this path."""
    first, _, rest = path.removeprefix("/").partition("/")
    if first == "gradio_api":
        return rest.partition("/")[0] in GRADIO_API
    return first in FIRST_PARTS
