"""How long a body may be, and how long it may take, whatever the request says about it."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_mamba_app.api.errors import BodyTooLarge, HttpError
from falcon_mamba_app.web.answers import refusal


class BodyTooSlow(HttpError):
    """The body did not arrive in time."""

    http_status = 408
    code = "request_timeout"


class BodyLimits:
    """Refuses a body by its declared length, or as soon as more than allowed has arrived."""

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, max_state_bytes: int, timeout_s: float
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_state_bytes = max_state_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, max_bytes=self._limit(scope), timeout_s=self._timeout_s)
        has_begun = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun
            # Whoever swallowed the refusal has no answer to an incomplete body.
            if body.refused is None or has_begun:
                has_begun = True
                await send(message)

        try:
            body.check_declared(scope)
            await self._app(scope, body.receive, send_on)
        except (BodyTooLarge, BodyTooSlow) as error:
            body.refused = error
        if body.refused is not None and not has_begun:
            await refusal(body.refused)(scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        path: str = scope["path"]
        is_state = path.startswith("/v1/sessions/") and scope["method"] == "PUT"
        return self._max_state_bytes if is_state else self._max_bytes


class _Body:
    """One request's body on its way in."""

    def __init__(self, receive: Receive, *, max_bytes: int, timeout_s: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._ends_s = asyncio.get_running_loop().time() + timeout_s
        self._num_bytes = 0
        self._is_complete = False
        self.refused: BodyTooLarge | BodyTooSlow | None = None

    def check_declared(self, scope: Scope) -> None:
        """Raises BodyTooLarge for a Content-Length over the limit."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._max_bytes:
                raise self._too_large()

    async def receive(self) -> Message:
        """The next part. Raises BodyTooLarge, BodyTooSlow."""
        if self._is_complete:  # what follows is the reader's leaving, which may take hours
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._ends_s):
                message = await self._receive()
        except TimeoutError:
            self.refused = BodyTooSlow(
                f"the body did not arrive within {self._timeout_s:g} s", {"Connection": "close"}
            )
            raise self.refused from None
        self._num_bytes += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._num_bytes > self._max_bytes:
            self.refused = self._too_large()
            raise self.refused
        return message

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"the body is too large; allowed are {self._max_bytes} bytes", {"Connection": "close"}
        )
