"""When a stored state is worth its fetch: when reading the tokens that it spares would take longer.

Both are measured as the service runs. A state has one size, so a fetch takes about the same each
time: 12 ms from a disk are 430 tokens of the 7B on an H100, and 13 on a CPU that reads 1,100 a
second.
"""

from __future__ import annotations

import math

from falcon_mamba_app.engine.events import EngineEvent, Prefilled

MIN_TOKENS = 32  # whatever is measured
WEIGHT = 0.2  # of the newest figure
MAX_SEQUENCES = 1_000  # whose last chunk is remembered


class BreakEven:
    """`min_tokens` is the fewest tokens for which a fetch pays."""

    def __init__(self) -> None:
        self._fetch_s: float | None = None
        self._tokens_per_s: float | None = None
        self._last_s: dict[int, float] = {}  # when each sequence's last chunk was read

    @property
    def min_tokens(self) -> int:
        if self._fetch_s is None or self._tokens_per_s is None:
            return MIN_TOKENS
        return max(MIN_TOKENS, math.ceil(self._fetch_s * self._tokens_per_s))

    def note_fetch(self, seconds: float) -> None:
        self._fetch_s = _moved(self._fetch_s, seconds)

    def note_event(self, event: EngineEvent, *, now_s: float) -> None:
        """Between two chunks of one prompt lies the reading of the second one."""
        if not isinstance(event, Prefilled):
            return
        last_s = self._last_s.pop(event.seq_id, None)
        if last_s is not None and now_s > last_s:
            speed = event.num_tokens / (now_s - last_s)
            self._tokens_per_s = _moved(self._tokens_per_s, speed)
        if len(self._last_s) >= MAX_SEQUENCES:
            self._last_s.clear()
        self._last_s[event.seq_id] = now_s


def _moved(figure: float | None, newest: float) -> float:
    return newest if figure is None else (1 - WEIGHT) * figure + WEIGHT * newest
