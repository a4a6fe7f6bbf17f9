"""What the local service counts: requests, tokens, speeds, and the memory of its process."""

from __future__ import annotations

import functools
import resource
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from falcon_mamba_app.engine.events import Admitted, EngineEvent, Prefilled, Sampled
from falcon_mamba_app.metrics import RollingRate
from falcon_mamba_app.service.local.reading_speed import Asked, ReadingSpeed

WINDOW_S = 5.0


class Counters:
    """Counters that only grow, and rates over the last seconds. Read and written by one thread."""

    def __init__(self) -> None:
        self._requests = 0
        self._prompt_tokens = 0
        self._reused_tokens = 0
        self._completion_tokens = 0
        self._draft_tokens = 0
        self._accepted_tokens = 0
        self._decode_rate = RollingRate(WINDOW_S)
        self._prefill_rate = RollingRate(WINDOW_S)
        self._reading_speed = ReadingSpeed()

    def count_request(self, num_prompt_tokens: int) -> None:
        self._requests += 1
        self._prompt_tokens += num_prompt_tokens

    def count_step(
        self, events: Sequence[EngineEvent], asked: Mapping[int, Asked], *, now_s: float
    ) -> None:
        """Count what one step did, for the requests by their sequences' ids."""
        self._reading_speed.note(events, asked, now_s=now_s)
        for event in events:
            self._count_event(event, now_s=now_s)

    def _count_event(self, event: EngineEvent, *, now_s: float) -> None:
        """Count what one step did for one sequence."""
        match event:
            case Admitted(num_reused_tokens=num_reused):
                self._reused_tokens += num_reused
            case Prefilled(num_tokens=num_tokens):
                self._prefill_rate.add(num_tokens, now_s=now_s)
            case Sampled(token=token):
                self._completion_tokens += 1
                self._draft_tokens += token.num_drafted
                self._accepted_tokens += token.was_drafted
                self._decode_rate.add(1, now_s=now_s)

    def as_stats(self, *, now_s: float) -> dict[str, Any]:
        """The fields of ServiceStats that are counted here."""
        return {
            "requests_total": self._requests,
            "prompt_tokens_total": self._prompt_tokens,
            "reused_tokens_total": self._reused_tokens,
            "completion_tokens_total": self._completion_tokens,
            "draft_tokens_total": self._draft_tokens,
            "accepted_tokens_total": self._accepted_tokens,
            "decode_tokens_per_s": self._decode_rate.per_s(now_s=now_s),
            "reading_tokens_per_s": self._reading_speed.tokens_per_s,
            "prefill_tokens_per_s": self._prefill_rate.per_s(now_s=now_s),
        }


@functools.cache
def _this_process() -> psutil.Process:
    return psutil.Process()


def process_memory() -> dict[str, int]:
    """Resident bytes of this process, current and peak, as fields of ServiceStats."""
    now_bytes = _this_process().memory_info().rss
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "process_memory_bytes": now_bytes,
        # The system updates the peak (ru_maxrss) a little later than the resident size.
        "peak_process_memory_bytes": max(now_bytes, peak_kib * 1024),
    }
