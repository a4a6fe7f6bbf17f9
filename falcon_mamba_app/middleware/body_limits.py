"""Limits the length of a body, and the time of its arrival, whatever its headers claim.

A long body costs the server more than a short request: each further part counts as one more
request, and so do many small chunks. The page's endpoints accept only as much as the page sends.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import NoReturn

from starlette.datastructures import State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_mamba_app.errors import FalconMambaError, TooManyRequests
from falcon_mamba_app.http.errors import BodyTooLarge, HttpError
from falcon_mamba_app.http.refusals import refusal
from falcon_mamba_app.visitors import Visitor, visitor_in


class BodyTooSlow(HttpError):
    """The body did not arrive in time."""

    http_status = 408
    code = "request_timeout"


# If a connection closes while its client still sends, the answer is lost. So the rest of a body is
# read and dropped, for at most this time; then the connection closes.
MAX_LINGER_S = 5.0
# A long body counts as one more request per this number of bytes, and of small parts.
BYTES_PER_REQUEST = 128 * 2**10
PARTS_PER_REQUEST = 64
SMALL_BYTES = 512
# A browser's copy of a conversation: a million characters of 4 bytes.
MAX_COPY_BYTES = 4_000_000
PAGE_FRAME_BYTES = 64 * 2**10  # the rest of an event of the page
MAX_LOGIN_BYTES = 8 * 2**10  # a user and a password
CLOSE = {"Connection": "close"}


class BodyLimits:
    """Refuses a body by its declared length, or as soon as more than allowed has arrived."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        max_state_bytes: int,
        timeout_s: float,
        max_message_chars: int = 0,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        page_bytes = max(4 * max_message_chars, MAX_COPY_BYTES) + PAGE_FRAME_BYTES
        self._max_page_bytes = min(max_bytes, page_bytes)
        self._max_state_bytes = max_state_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visitor = visitor_in(State(scope.get("state")))
        body = _Body(receive, visitor, max_bytes=self._limit(scope), timeout_s=self._timeout_s)
        has_begun = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun
            # The application caught the refusal, so it cannot answer an incomplete body.
            if body.refused is None or has_begun:
                has_begun = True
                await send(message)

        try:
            body.check_declared(scope)
            await self._app(scope, body.receive, send_on)
        except FalconMambaError as error:
            if error is not body.refused:
                raise
        if body.refused is not None and not has_begun:
            await _refuse(body.refused, scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        path: str = scope["path"]
        if path.startswith(("/v1/sessions/", "/memory/")) and scope["method"] == "PUT":
            return self._max_state_bytes
        if path == "/v1/sessions/import":  # states may come along
            return max(self._max_bytes, self._max_state_bytes)
        if path == "/login":
            return min(self._max_bytes, MAX_LOGIN_BYTES)
        return self._max_page_bytes if path.startswith("/gradio_api/") else self._max_bytes


class _Body:
    """One request's body on its way in."""

    def __init__(
        self, receive: Receive, visitor: Visitor, *, max_bytes: int, timeout_s: float
    ) -> None:
        self._receive = receive
        self._visitor = visitor
        self._num_counted = 0
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._ends_s = asyncio.get_running_loop().time() + timeout_s
        self._num_bytes = self._num_parts = 0
        self._is_complete = False
        self.refused: FalconMambaError | None = None

    def check_declared(self, scope: Scope) -> None:
        """Raises BodyTooLarge for a Content-Length over the limit."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._max_bytes:
                self._refuse_length()

    async def receive(self) -> Message:
        """The next part. Raises BodyTooLarge, BodyTooSlow, TooManyRequests."""
        if self._is_complete:  # only the reader's leaving can follow, perhaps after hours
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._ends_s):
                message = await self._receive()
        except TimeoutError:
            self._refuse(
                BodyTooSlow(f"the body did not arrive within {self._timeout_s:g} s", CLOSE)
            )
        self._num_bytes += len(message.get("body", b""))
        self._num_parts += 1
        self._is_complete = not message.get("more_body", False)
        if self._num_bytes > self._max_bytes:
            self._refuse_length()
        self._count()
        return message

    def _count(self) -> None:
        num_small = max(0, self._num_parts - self._num_bytes // SMALL_BYTES)
        amount = self._num_bytes // BYTES_PER_REQUEST + num_small // PARTS_PER_REQUEST
        if amount > self._num_counted:
            try:
                self._visitor.count_request(amount - self._num_counted)
            except TooManyRequests as error:
                self._refuse(error)
            self._num_counted = amount

    def _refuse_length(self) -> NoReturn:
        message = f"the body is too large; allowed are {self._max_bytes} bytes"
        self._refuse(BodyTooLarge(message, CLOSE))

    def _refuse(self, error: FalconMambaError) -> NoReturn:
        self.refused = error
        raise error from None


async def _refuse(error: FalconMambaError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, and close the connection when the client has had time to read it."""

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.body":
            message["more_body"] = True
        await send(message)

    await refusal(error, scope["path"])(scope, receive, send_on)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0 if isinstance(error, BodyTooSlow) else MAX_LINGER_S):
            while (await receive()).get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
