"""Limits bodies for the page's endpoints to JSON of few values; Gradio itself parses anything."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.http.json_bodies import check_values
from falcon_mamba_app.http.refusals import refusal

PAGE_API = "/gradio_api/"
# An event of the page has about ten values; the caller of an endpoint may send a list.
MAX_VALUES = 10_000


class PageBodies:
    """Reads the bodies for the page's endpoints, and refuses those with too many values."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_body = scope["type"] == "http" and scope["path"].startswith(PAGE_API)
        if not is_body or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        body, is_whole = await _whole(receive)
        try:
            await check_values(body, max_values=MAX_VALUES)
        except FalconMambaError as error:
            await refusal(error, scope["path"])(scope, receive, send)
            return
        await self._app(scope, _again(body, receive, is_whole=is_whole), send)


async def _whole(receive: Receive) -> tuple[bytes, bool]:
    """The body, and whether it arrived completely."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts), False
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts), True


def _again(body: bytes, receive: Receive, *, is_whole: bool) -> Receive:
    """A `receive` that returns the whole body at once, and then the later messages."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        if not is_whole:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
