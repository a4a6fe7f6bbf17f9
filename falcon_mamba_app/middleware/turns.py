"""Few requests begin, and few connections end, in one turn of the event loop.

What arrives together would otherwise be one turn: 200 requests of 0.7 ms hold everybody for 140 ms,
and a thousand pages that a network fault closes for 760 ms. Here each turn takes a few of them, of
one visitor after the other. So who comes later waits for a few requests of a crowd, not for all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from falcon_mamba_app.rates import network

MAX_BEGUN = 4
MAX_ENDED = 8
MAX_ACCEPTED = 64  # connections; many more may wait, see `listener`


class FewATurn:
    """Runs at most `limit` works in a turn of the loop; the others wait, in a line for each name,
    and the lines move one after the other.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._num_run = 0  # in this turn
        self._lines: dict[str, deque[Callable[[], object]]] = {}

    def run(self, name: str, work: Callable[[], object]) -> None:
        """Now, where nobody waits and few have run in this turn."""
        if self._lines or self._num_run >= self._limit:
            self._lines.setdefault(name, deque()).append(work)
            return
        self._count()
        work()

    def _count(self) -> None:
        self._num_run += 1
        if self._num_run == 1:
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._num_run = 0
        while self._lines and self._num_run < self._limit:
            name = next(iter(self._lines))
            line = self._lines.pop(name)
            # As a callback of its own, so that one that fails takes no other along.
            asyncio.get_running_loop().call_soon(line.popleft())
            if line:
                self._lines[name] = line  # behind the others
            self._count()


class Turns:
    """Lets a request begin when it is its visitor's turn."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._begins = FewATurn(MAX_BEGUN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            address = scope["client"][0] if scope.get("client") else ""
            turn = asyncio.get_running_loop().create_future()
            self._begins.run(network(address), partial(_end_waiting, turn))
            if not turn.done():
                await turn
        await self._app(scope, receive, send)


def _end_waiting(turn: asyncio.Future[None]) -> None:
    if not turn.done():  # its task may have been cancelled
        turn.set_result(None)
