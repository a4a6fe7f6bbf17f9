"""Limits that count over all copies of a server: the copies tell each other what was spent.

No request waits for it. Once a second each copy writes what visitors have spent there into the
library's database, and charges here what the others have written. So a visitor who comes to N
copies in the same second can take N times a limit, and pays with waiting: the average per minute is
that of one copy. Without the database each copy counts alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from typing import Self

from falcon_mamba_app.errors import LibraryUnavailable
from falcon_mamba_app.library import Library
from falcon_mamba_app.library.spending import Spending, Told
from falcon_mamba_app.tally import RUNNING, Tally

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
SWEEP_S = 30.0  # how often rows of copies that have ended are looked for
# A copy that is silent for so long writes no replies any more, though it may still seem to live.
SILENT_S = 10.0
MAX_HEARD = 200_000


class SharedLimits:
    """Joins a copy's tally to those of the others."""

    def __init__(self, tally: Tally, spending: Spending) -> None:
        self.tally, self._spending = tally, spending
        self._round = 0
        self._seen: dict[str, int] = {}  # the last round of each copy
        self._heard_s: dict[str, float] = {}  # when that was
        self._amounts: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self._is_first = True
        self._running: asyncio.Task[None] | None = None
        self._swept_s = time.monotonic()

    @classmethod
    def begin(cls, library: Library | None, secret: str | None) -> Self | None:
        """Of one copy among several, from now on; None where they have no database or no secret."""
        if library is None or secret is None:
            logger.warning("limits per visitor count for this copy alone: there is no database")
            return None
        shared = cls(Tally(secret), library.spending)
        shared._running = asyncio.create_task(shared._run())
        return shared

    async def exchange(self) -> None:
        """Tell and hear once. Raises LibraryUnavailable; nothing is lost then."""
        news, old = self.tally.news()
        self._round += 1
        try:
            told = await self._spending.exchange(self._round, news, old, self._seen)
        except LibraryUnavailable:
            self.tally.tell_again(news)
            raise
        now_s = time.monotonic()
        for one in told:
            self._hear(one)
            self._seen[one.writer] = max(one.round, self._seen.get(one.writer, 0))
            self._heard_s[one.writer] = now_s
        self._is_first = False
        for writer in [name for name, at_s in self._heard_s.items() if now_s - at_s > SILENT_S]:
            self.tally.forget_copy(writer)
            del self._heard_s[writer]

    async def sweep(self) -> None:
        """Forget copies that have ended. Raises LibraryUnavailable."""
        for writer in await self._spending.sweep():
            self.tally.forget_copy(writer)
            self._seen.pop(writer, None)
            self._heard_s.pop(writer, None)

    async def close(self) -> None:
        """The copy is about to end."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
            with contextlib.suppress(LibraryUnavailable):
                await self._spending.leave()

    def _hear(self, one: Told) -> None:
        if one.what == RUNNING:
            self.tally.hear_running(one.writer, one.whose, one.amount)
            return
        key = one.writer, one.what, one.whose
        before = self._amounts.pop(key, 0)
        self._amounts[key] = one.amount
        if len(self._amounts) > MAX_HEARD:
            self._amounts.popitem(last=False)
        # What was spent before this copy began is forgiven; a copy that had forgotten a visitor
        # counts from the beginning.
        more = one.amount - before if one.amount >= before else one.amount
        if not self._is_first:
            self.tally.hear(one.what, one.whose, more)

    async def _run(self) -> None:
        has_failed = False
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.exchange()
                if time.monotonic() - self._swept_s > SWEEP_S:
                    self._swept_s = time.monotonic()
                    await self.sweep()
            except LibraryUnavailable as error:
                if not has_failed:
                    logger.warning("limits count for this copy alone: %s", error)
                has_failed = True
            else:
                if has_failed:
                    logger.info("limits count over all copies again")
                has_failed = False
