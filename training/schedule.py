"""How far a run has come, and the learning rate there.

A run is limited by steps or by wall time, since rented machines are paid by the minute. By wall
time the whole schedule adapts: a slower machine sees fewer tokens, and still ends at the end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import psutil

WARMUP_STEPS = 80  # counted in steps: the first of them also wait for the compiler
PEAK_UNTIL = 0.30  # of the run; then straight down to nothing


def learning_rate(step: int, progress: float, peak: float) -> float:
    """Up over the first steps, flat, and down in a straight line to a hundredth of the peak."""
    rise = min(1.0, (step + 1) / WARMUP_STEPS)
    if progress < PEAK_UNTIL:
        return peak * rise
    left = max(0.0, 1.0 - progress) / (1.0 - PEAK_UNTIL)
    return peak * rise * (0.01 + 0.99 * left)


def process_age_s() -> float:
    return time.time() - psutil.Process().create_time()


@dataclass(slots=True)
class Clock:
    """Progress from 0 to 1, by steps where `num_steps` is given, else by seconds.

    It starts with the process, since rented minutes do; `spent_s` is what the earlier parts of a
    resumed run took.
    """

    num_steps: int | None
    limit_s: float
    spent_s: float = 0.0
    started_s: float = field(default_factory=lambda: time.monotonic() - process_age_s())

    @property
    def elapsed_s(self) -> float:
        return self.spent_s + time.monotonic() - self.started_s

    def progress(self, step: int) -> float:
        if self.num_steps is not None:
            return min(1.0, step / self.num_steps)
        return min(1.0, self.elapsed_s / self.limit_s)
