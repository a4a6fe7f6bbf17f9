"""The page's own answers are made two at a time, and of each visitor one after the other.

Gradio makes the page and its configuration anew for each request, on a thread: 10 to 25 ms. Forty
threads at once, as many as there are otherwise, take Python's lock from the event loop, and every
reply stands still. An answer that has begun holds no place: its reader may be slow.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.datastructures import State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_mamba_app.http.refusals import is_api
from falcon_mamba_app.visitors import visitor_in

NUM_PLACES = 2


class Places:
    """A few places; whoever has none waits, and the names get them one after the other."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._holders: set[str] = set()
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, name: str) -> None:
        """Return once the name has a place; it never has two."""
        if name not in self._holders and name not in self._lines and self._has_room:
            self._holders.add(name)
            return
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(name, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(name)
            raise

    def give_back(self, name: str) -> None:
        self._holders.discard(name)
        for waiting in list(self._lines):
            if not self._has_room:
                return
            if waiting not in self._holders:
                self._admit(waiting)

    def _admit(self, name: str) -> None:
        line = self._lines.pop(name)
        turn = None
        while line and (turn is None or turn.done()):
            turn = line.popleft()
        if turn is not None and not turn.done():
            self._holders.add(name)
            turn.set_result(None)
        if line:
            self._lines[name] = line  # behind the others

    @property
    def _has_room(self) -> bool:
        return len(self._holders) < self._number


class PageLine:
    """Lets each request for a part of the page wait for a place until its answer begins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._places = Places(NUM_PLACES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_http = scope["type"] == "http"
        if not is_http or scope["method"] not in ("GET", "HEAD") or is_api(scope["path"]):
            await self._app(scope, receive, send)
            return
        name, has_place = visitor_in(State(scope.get("state"))).name, True

        def leave() -> None:
            nonlocal has_place
            if has_place:
                has_place = False
                self._places.give_back(name)

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                leave()
            await send(message)

        await self._places.take(name)
        try:
            await self._app(scope, receive, send_on)
        finally:
            leave()
