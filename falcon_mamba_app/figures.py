"""Figures of all replies for operators: the duration of each part, and the kinds of ends.

Figures only count up, and a histogram is a few counts, so memory does not grow with use. It knows
no Prometheus; every time is passed in.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from time import monotonic

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import (
    Accepted,
    Finished,
    GenerationEvent,
    GenerationRequest,
    GenerationService,
    TextDelta,
)
from falcon_mamba_app.service_wrapper import ServiceWrapper
from falcon_mamba_app.traces import Traces

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
SHORT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
TOKENS = (1, 8, 32, 128, 512, 2_048, 8_192, 32_768, 131_072)
CANCELLED = "cancelled"  # its reader went away, or somebody pressed stop


class Histogram:
    """Counts of values up to each of some bounds, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, int]]:
        """Prometheus' buckets: how many values were at most each bound."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        sums, so_far = [], 0
        for count in self._counts:
            so_far += count
            sums.append(so_far)
        return list(zip(names, sums, strict=True))


def _histogram(bounds: tuple[float, ...]) -> Histogram:
    made: Histogram = field(default_factory=lambda: Histogram(bounds))
    return made


@dataclass(slots=True)
class Figures:
    """Counts and histograms of all replies, the page's and the API's."""

    ttft_s: Histogram = _histogram(SECONDS)
    itl_s: Histogram = _histogram(SHORT_SECONDS)
    queue_s: Histogram = _histogram(SECONDS)
    prompt_tokens: Histogram = _histogram(TOKENS)
    reply_tokens: Histogram = _histogram(TOKENS)
    ended: Counter[str] = field(default_factory=Counter)  # by reason, or the error's code
    num_reusing: int = 0  # replies that began from a state
    api_errors: Counter[str] = field(default_factory=Counter)  # by code, as answered
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)  # by surface and status
    key_tokens: Counter[tuple[str, str]] = field(default_factory=Counter)  # by key and kind


class FiguredService(ServiceWrapper):
    """A service whose replies are counted in `figures`; in all else the service itself."""

    def __init__(
        self, service: GenerationService, figures: Figures, traces: Traces | None = None
    ) -> None:
        """With `traces` each reply has one."""
        super().__init__(service)
        self._figures, self._traces = figures, traces

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """The service's events, each noted as it passes."""
        reply = _Reply(self._figures, monotonic())
        trace = self._traces.begin() if self._traces is not None else None
        try:
            async with aclosing(self._service.generate(request)) as events:
                async for event in events:
                    reply.note(event, monotonic())
                    if trace is not None:
                        trace.note(event)
                    yield event
        except Exception as error:
            kind = error if isinstance(error, FalconMambaError) else FalconMambaError
            reply.ended_by = kind.code
            raise
        finally:
            self._figures.ended[reply.ended_by] += 1
            if trace is not None:
                trace.end(reply.ended_by)


class _Reply:
    """One reply passing by."""

    def __init__(self, figures: Figures, started_s: float) -> None:
        self._figures, self._started_s = figures, started_s
        self._last_s: float | None = None
        self.ended_by = CANCELLED

    def note(self, event: GenerationEvent, now_s: float) -> None:
        figures = self._figures
        match event:
            case Accepted():
                figures.queue_s.observe(now_s - self._started_s)
            case TextDelta():
                if self._last_s is None:
                    figures.ttft_s.observe(now_s - self._started_s)
                else:
                    figures.itl_s.observe(now_s - self._last_s)
                self._last_s = now_s
            case Finished(prompt_tokens=prompt_tokens, reused_tokens=reused_tokens):
                if prompt_tokens is not None:
                    figures.prompt_tokens.observe(prompt_tokens)
                figures.num_reusing += bool(reused_tokens)
                figures.reply_tokens.observe(event.completion_tokens)
                self.ended_by = event.reason
