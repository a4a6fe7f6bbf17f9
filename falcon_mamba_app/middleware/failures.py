"""Answers unexpected exceptions, and adds the time of the next try to a 503.

Without it an exception would reach the web server, which logs the message, and a message may quote
the user.
"""

from __future__ import annotations

import logging

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_mamba_app.http.errors import presentable
from falcon_mamba_app.http.refusals import refusal
from falcon_mamba_app.http.transport import ReaderGone

DEFAULT_RETRY_S = 5

logger = logging.getLogger(__name__)


class Failures:
    """Answers 500 if no answer has begun; otherwise it only logs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no web sockets here
        has_begun = is_complete = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun, is_complete
            if message["type"] == "http.response.start":
                has_begun = True
                _say_when_to_come_back(message)
            else:
                is_complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except (ClientDisconnect, ReaderGone):
            return  # the client left inside a body, which is common and no error
        except Exception as raised:
            if has_begun and isinstance(raised.__cause__, HTTPException):
                raise BrokenAnswer from None  # the refusal came after the status was sent
            error = presentable(raised)
            if not has_begun:
                await refusal(error, scope["path"])(scope, receive, send_on)
            elif not is_complete:  # a clean end would make half an answer look whole
                raise BrokenAnswer from None


class BrokenAnswer(Exception):
    """Makes the web server cut the connection; its cause has been logged."""


def is_news(record: logging.LogRecord) -> bool:
    """A filter for the web server's log, which would report every broken answer again."""
    return not (record.exc_info and isinstance(record.exc_info[1], BrokenAnswer))


def _say_when_to_come_back(message: Message) -> None:
    headers = MutableHeaders(scope=message)
    if message["status"] in (429, 503) and "retry-after" not in headers:
        headers["Retry-After"] = str(DEFAULT_RETRY_S)
