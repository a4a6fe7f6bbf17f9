"""Gives every request an id, which the answer and the log carry, and a uniform path.

OpenAI's clients show the id with an error; operators find the log lines by it.
"""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_mamba_app.http.refusals import is_api
from falcon_mamba_app.logs import request_id
from falcon_mamba_app.traces import traceparent

HEADER = "x-request-id"
GIVEN_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)  # no characters that could forge a log line


class RequestIds:
    """Takes the caller's x-request-id, or makes one; every answer has it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER, "")
        own = given if GIVEN_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = own
            await send(message)

        token = request_id.set(own)
        callers_span = traceparent.set(headers.get("traceparent"))
        try:
            await self._app(scope, receive, send_on)
        finally:
            request_id.reset(token)
            traceparent.reset(callers_span)


class OneSpelling:
    """Removes the final slash that some balancers and clients add to the API's paths."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/"):
            plain = scope["path"].rstrip("/")
            if is_api(plain):
                scope = {**scope, "path": plain, "raw_path": scope["raw_path"].rstrip(b"/")}
        await self._app(scope, receive, send)
