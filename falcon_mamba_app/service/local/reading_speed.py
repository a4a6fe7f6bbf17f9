"""How fast prompts are read here: from it the page says how long a text will take.

Unlike a rate over the last seconds it does not fall while nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from falcon_mamba_app.engine.events import EngineEvent, Prefilled

MIN_TOKENS = 32  # fewer in one step say more of the step than of the speed
WEIGHT = 0.2  # of the newest figure


class Asked(Protocol):
    """A request; started_s: when it came."""

    @property
    def started_s(self) -> float: ...


class ReadingSpeed:
    """`tokens_per_s` is None until enough was read in one step."""

    def __init__(self) -> None:
        self.tokens_per_s: float | None = None
        self._last_s = float("-inf")

    def note(
        self, events: Iterable[EngineEvent], asked: Mapping[int, Asked], *, now_s: float
    ) -> None:
        """A step of the engine has ended. It began where the one before had ended, but not before
        the first of the sequences that it read was asked for.
        """
        read = [event for event in events if isinstance(event, Prefilled)]
        began_s, self._last_s = self._last_s, now_s
        num_tokens = sum(event.num_tokens for event in read)
        if num_tokens < MIN_TOKENS:
            return
        known = [asked[event.seq_id].started_s for event in read if event.seq_id in asked]
        began_s = max(began_s, min(known, default=now_s))
        if began_s >= now_s:
            return
        newest, before = num_tokens / (now_s - began_s), self.tokens_per_s
        self.tokens_per_s = newest if before is None else before + WEIGHT * (newest - before)
