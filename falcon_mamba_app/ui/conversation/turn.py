"""One reply in progress: it belongs to its session and continues whether or not a page watches it.

A page that reloads or loses its connection watches again, and sees the reply as it is by then. A
reply without a page for `alone_s` is cut, and its slot is freed. The service is read as fast as it
writes. Each page gets at most one update per `interval_s`, but the first text and the end at once;
a page that reads slowly skips updates.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Protocol

from falcon_mamba_app.metrics import ReplyMeter
from falcon_mamba_app.protocol import GenerationEvent, TextDelta
from falcon_mamba_app.ui.conversation.reply import Reply

# 12 updates a second look continuous; each costs the server a millisecond or more.
UPDATE_INTERVAL_S = 1 / 12
# How long a reply continues without a page, which may come back.
ALONE_S = 60.0
# A queued reply has nothing new to send, but only sending shows that a page is gone, and the page
# treats 35 s of silence as a broken connection (assets/page.js).
KEEPALIVE_S = 10.0


class Target(Protocol):
    """Where a reply goes, and how pages show it."""

    def take(self, reply: Reply) -> None:
        """Bring the session up to date with the reply so far."""
        ...

    def update(self, reply: Reply, *, panel: Any) -> Any:
        """The changes of a page for the reply as it is now: an Update (ui/view/updates.py)."""
        ...

    def end(self, reply: Reply, error: BaseException | None) -> None:
        """The reply is over; `error` ended it, if any. Called once, before the last update."""
        ...


class _Watcher:
    """One page that watches. `news` is worth an update, `urgent` one without delay."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.urgent = asyncio.Event()

    def ring(self, *, is_urgent: bool) -> None:
        self.news.set()
        if is_urgent:
            self.urgent.set()

    async def wait(self, interval_s: float) -> None:
        """Return when there is something to show and the interval has passed."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.urgent.wait(), interval_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.news.wait(), KEEPALIVE_S)
        self.news.clear()
        self.urgent.clear()


class Turn:
    """Reads the service's events into `reply` from the moment it is made, on the running loop."""

    def __init__(
        self,
        events: AsyncGenerator[GenerationEvent, None],
        target: Target,
        *,
        alone_s: float = ALONE_S,
    ) -> None:
        self.reply = Reply(meter=ReplyMeter(started_s=time.monotonic()))
        self.target = target
        self.is_stopped = False
        self.is_cut = False  # ended because no page watched
        self.is_over = False
        self.ended = asyncio.Event()
        self._is_dropped = False
        self._alone_s = alone_s
        self._watchers: dict[str, _Watcher] = {}
        self._task = asyncio.create_task(self._write(events))
        self._task.add_done_callback(self._end)
        self._cutting = self._cut_if_still_alone()

    def stop(self) -> None:
        """Close the service's generator now; what was written stays."""
        self.is_stopped = True
        self._task.cancel()

    def drop(self) -> None:
        """Stop without changing the session: its conversation has been replaced."""
        self._is_dropped = True
        self.stop()
        self._release(*self._watchers)

    def leave(self, page: str) -> None:
        """The page has stopped watching."""
        self._release(page)
        if not self._watchers and not self.is_over:
            self._cutting.cancel()
            self._cutting = self._cut_if_still_alone()

    def is_watched_by(self, page: str) -> bool:
        return page in self._watchers

    async def watch(
        self, page: str, interval_s: float = UPDATE_INTERVAL_S
    ) -> AsyncGenerator[Reply, None]:
        """Yield the reply now and whenever it has grown, to its end; the session is up to date each
        time. Ends early when the same page watches again, or has left.
        """
        me = _Watcher()
        self._release(page)
        self._watchers[page] = me
        self._cutting.cancel()
        try:
            while self._watchers.get(page) is me:
                is_last, has_news = self.is_over, self.reply.phase != "starting"
                if not is_last:
                    self.target.take(self.reply)
                yield self.reply
                if is_last:
                    return
                await me.wait(interval_s if has_news else 0.0)
        finally:
            if self._watchers.get(page) is me:
                self.leave(page)

    async def _write(self, events: AsyncGenerator[GenerationEvent, None]) -> None:
        has_text = False
        async with aclosing(events):
            async for event in events:
                self.reply.apply(event, now_s=time.monotonic())
                is_first_text = isinstance(event, TextDelta) and not has_text
                has_text = has_text or is_first_text
                if not self.reply.is_over:  # the end is sent after the session has it
                    self._ring(is_urgent=is_first_text)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._cutting.cancel()
        error = None if task.cancelled() else task.exception()
        if self.reply.phase != "finished":
            self.reply.phase = "stopped" if self.is_stopped or error is None else "failed"
        self.is_over = True
        try:
            if not self._is_dropped:
                self.target.end(self.reply, error if self.reply.phase == "failed" else None)
        finally:
            self.ended.set()
            self._ring(is_urgent=True)

    def _cut_if_still_alone(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._alone_s, self._cut)

    def _cut(self) -> None:
        if not self._watchers:
            self.is_cut = True
            self.stop()

    def _ring(self, *, is_urgent: bool) -> None:
        for watcher in self._watchers.values():
            watcher.ring(is_urgent=is_urgent)

    def _release(self, *pages: str) -> None:
        for page in pages:
            if (watcher := self._watchers.pop(page, None)) is not None:
                watcher.ring(is_urgent=True)
