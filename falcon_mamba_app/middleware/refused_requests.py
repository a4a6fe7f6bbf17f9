"""Counts the requests that were answered with an error, whichever layer refused them."""

from __future__ import annotations

from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_mamba_app.http.refusals import is_api


class RefusedRequests:
    """Watches the answers' statuses; changes none. `counts` is by surface, "api" or "page", and
    status.
    """

    def __init__(self, app: ASGIApp, *, counts: Counter[tuple[str, str]]) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                surface = "api" if is_api(scope["path"]) else "page"
                self._counts[surface, str(message["status"])] += 1
            await send(message)

        await self._app(scope, receive, send_on)
