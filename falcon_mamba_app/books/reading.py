"""One book being read: in parts, behind everybody's replies, until its end or until it is stopped.

Each part leaves a state under the book's id, so a stop keeps all that was read. A part takes about
two seconds, so a stop is heard within that time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from falcon_mamba_app.errors import FalconMambaError, Overloaded, origin_of
from falcon_mamba_app.protocol import (
    Accepted,
    GenerationRequest,
    GenerationService,
    PrefillProgress,
    SamplingParams,
    TokenIds,
)

logger = logging.getLogger(__name__)

# A book takes a tenth of a share of the engine while others have work.
WEIGHT = 0.1
PART_S = 2.0
MIN_PART, MAX_PART = 256, 8_192
RATE_S = 5.0  # the time over which the speed is told
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading is. Seconds left are None until a speed is known."""

    num_read: int
    num_tokens: int
    tokens_per_s: float
    seconds: float
    seconds_left: float | None


class Reading:
    """Reads ids into the state of one session. `counts` is told the tokens of each part."""

    def __init__(
        self,
        service: GenerationService,
        session_id: str,
        ids: array[int],
        *,
        after: int,
        owner: str,
        weight: float,
        keeps_state: bool,
        counts: Callable[[int], None],
        num_read: int = 0,
        begins_from: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`after` is the id that follows the last one; no state reads it. The first `num_read` are
        in a state already, or are read again.
        """
        self._service, self._session_id = service, session_id
        self._ids, self._after = ids, after
        self._owner, self._weight, self._keeps_state = owner, weight * WEIGHT, keeps_state
        self._counts, self._clock, self._begins_from = counts, clock, begins_from
        self._started_s = clock()
        self._points: deque[tuple[float, int]] = deque([(self._started_s, num_read)])
        self._num_told = self.num_read = num_read
        self._is_stopped = False

    def stop(self) -> None:
        """Read no further part."""
        self._is_stopped = True

    @property
    def is_stopped(self) -> bool:
        return self._is_stopped

    def progress(self) -> Progress:
        now_s = self._clock()
        (first_s, first), (last_s, last) = self._points[0], self._points[-1]
        rate = (last - first) / (last_s - first_s) if last_s > first_s else 0.0
        left = len(self._ids) - self._num_told
        return Progress(
            self._num_told,
            len(self._ids),
            rate,
            now_s - self._started_s,
            left / rate if rate > 0 else None,
        )

    async def run(self) -> None:
        """Return when all is read, or the stop was heard. Raises what ends the service, and what
        one part does wrong.
        """
        part = MIN_PART
        while self.num_read < len(self._ids) and not self._is_stopped:
            end = min(self.num_read + part, len(self._ids))
            began_s = self._clock()
            try:
                await self._read_to(end)
            except Overloaded:
                await asyncio.sleep(RETRY_S)
                continue
            self._counts(end - self.num_read)
            self.num_read = end
            rate = part / max(self._clock() - began_s, 1e-3)
            part = int(min(MAX_PART, max(MIN_PART, min(2 * part, rate * PART_S))))

    async def _read_to(self, end: int) -> None:
        after = self._ids[end] if end < len(self._ids) else self._after
        request = GenerationRequest(
            prompt=TokenIds([*self._ids[:end], after]),
            sampling=SamplingParams(max_new_tokens=0),
            session_id=self._session_id,
            keeps_state=self._keeps_state,
            begins_from=self._begins_from,
            only_reads=True,
            owner=self._owner,
            weight=self._weight,
        )
        async with aclosing(self._service.generate(request)) as events:
            async for event in events:
                if isinstance(event, PrefillProgress):
                    self._tell(min(event.computed_tokens, end))
                elif isinstance(event, Accepted) and event.reused_tokens is not None:
                    self._tell(event.reused_tokens)
        self._tell(end)

    def _tell(self, num_read: int) -> None:
        now_s = self._clock()
        self._num_told = max(self._num_told, num_read)
        self._points.append((now_s, self._num_told))
        while len(self._points) > 2 and self._points[1][0] < now_s - RATE_S:
            self._points.popleft()


def sentence_for(error: Exception) -> str:
    """Why reading ended, for the reader."""
    if isinstance(error, FalconMambaError):
        return str(error)
    logger.error("reading a book failed: %s", origin_of(error))
    return f"reading failed ({type(error).__name__}); see the server's log"
