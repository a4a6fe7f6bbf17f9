"""The connection that every open page holds, so that the server notices when the page leaves.

For each page that leaves, Gradio runs a whole event and searches its configuration: 12 ms on the
event loop, even for pages that were never opened. A network fault can end hundreds of pages at
once. Here the cost of a leaving page depends on its own data, and only a few leave at a time.
tests/ui/test_heartbeat.py fails if a new version of Gradio has moved the parts used here.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator

from fastapi import HTTPException
from gradio.routes import App
from gradio.utils import get_heartbeat_rate
from starlette.datastructures import State
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from falcon_mamba_app.visitors import BUSY_RETRY_S, Visitor, visitor_in

ROUTE = "/gradio_api/heartbeat/{session_hash}"
ALIVE = b"data: ALIVE\n\n"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}
# Pages whose leaving is handled in one turn of the event loop.
MAX_LEAVING = 16


def keep_heartbeats(page: App, leave: Callable[[str], None]) -> None:
    """From now on, by this page; `leave` hears of each page that has gone, by its name."""
    page.router.routes.insert(0, Route(ROUTE, Heartbeats(page, leave), methods=["GET"]))


class Heartbeats:
    """Answers a heartbeat's request, for as long as it lasts. A visitor may have as many as
    conversations. A page that holds several leaves with the last one.
    """

    def __init__(self, page: App, leave: Callable[[str], None]) -> None:
        self._page = page
        self._leave = leave
        self._held: Counter[str] = Counter()
        self._beating: Counter[str] = Counter()  # pages
        self._gone: deque[str] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises HTTPException for one too many."""
        name: str = scope["path_params"]["session_hash"]
        with self._counted(visitor_in(State(scope.get("state")))):
            self._beating[name] += 1
            try:
                await send(START)
                await self._beat(receive, send)
            finally:
                self._beating[name] -= 1
                if not self._beating[name]:
                    del self._beating[name]
                    self._leave_soon(name)
            await send({"type": "http.response.body", "body": b""})

    async def _beat(self, receive: Receive, send: Send) -> None:
        """Until the page has gone or the server stops."""
        ends = {
            asyncio.create_task(self._page.stop_event.wait()),
            asyncio.create_task(_leaves(receive)),
        }
        try:
            ended: set[asyncio.Task[object]] = set()
            while not ended:
                await send({"type": "http.response.body", "body": ALIVE, "more_body": True})
                ended, _ = await asyncio.wait(
                    ends, timeout=get_heartbeat_rate(), return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            for task in ends:
                task.cancel()

    @contextlib.contextmanager
    def _counted(self, visitor: Visitor) -> Iterator[None]:
        if self._held[visitor.name] >= visitor.max_sessions:
            raise HTTPException(
                429,
                f"{visitor.max_sessions} pages are open from here, the most this server keeps;"
                " close some of them",
                {"Retry-After": str(BUSY_RETRY_S)},
            )
        self._held[visitor.name] += 1
        try:
            yield
        finally:
            self._held[visitor.name] -= 1
            if not self._held[visitor.name]:
                del self._held[visitor.name]

    def _leave_soon(self, name: str) -> None:
        self._gone.append(name)
        if len(self._gone) == 1:
            asyncio.get_running_loop().call_soon(self._leave_some)

    def _leave_some(self) -> None:
        for _ in range(min(len(self._gone), MAX_LEAVING)):
            name = self._gone.popleft()
            self._let_go(name)
            self._leave(name)
        if self._gone:
            asyncio.get_running_loop().call_soon(self._leave_some)

    def _let_go(self, name: str) -> None:
        """What Gradio itself does for a page that has gone; nothing for one that did nothing."""
        blocks = self._page.get_blocks()
        if name in blocks.state_holder.session_data:
            blocks.state_holder.session_data[name].is_closed = True
        for event_id in blocks._queue.pending_event_ids_session.get(name, ()):
            event = blocks._queue.event_ids_to_events.get(event_id)
            if event is not None:
                event.run_time = math.inf
                event.closed = True
                event.signal.set()


async def _leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
