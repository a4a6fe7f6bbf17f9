"""Finds the visitor of each request, and counts its requests and its open ones."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from falcon_mamba_app.errors import TooManyRequests
from falcon_mamba_app.http.refusals import refusal
from falcon_mamba_app.visitors import Visitor, Visitors

LOOPBACK = ("127.", "::1", "::ffff:127.")

logger = logging.getLogger(__name__)


class VisitorLimits:
    """Stores the Visitor in the request's state, for the page and the API.

    `exempts_this_machine` requires that no relay on this machine forwards requests of others.
    """

    def __init__(self, app: ASGIApp, *, visitors: Visitors, exempts_this_machine: bool) -> None:
        self._app = app
        self._visitors = visitors
        self._exempts_this_machine = exempts_this_machine
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visitor = self._visitor(scope)
        scope.setdefault("state", {})["visitor"] = visitor
        try:
            visitor.count_request()
            with visitor.connection():
                await self._app(scope, receive, send)
        except TooManyRequests as error:
            await refusal(error, scope["path"])(scope, receive, send)

    def _visitor(self, scope: Scope) -> Visitor:
        address = scope["client"][0] if scope.get("client") else ""
        is_here = address.startswith(LOOPBACK)
        if is_here and not self._has_warned and _is_forwarded(scope):
            self._has_warned = True
            logger.warning(
                "requests come through a proxy on this machine, so all visitors look like one;"
                " name the proxy with --trusted-proxies to tell them apart"
            )
        return self._visitors.at(address, is_exempt=is_here and self._exempts_this_machine)


def _is_forwarded(scope: Scope) -> bool:
    return any(name == b"x-forwarded-for" for name, _ in scope["headers"])
