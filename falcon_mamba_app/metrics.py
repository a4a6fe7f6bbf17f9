"""Figures of speed: events with a time in, tokens per second out.

Knows nothing of engines, pages or Prometheus; every time is passed in, so tests need no clock.
Standard library only.
"""

from __future__ import annotations

from collections import deque

from falcon_mamba_app.protocol import Accepted, Finished, GenerationEvent


class RollingRate:
    """Events per second over the last `window_s` seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._events: deque[tuple[float, int]] = deque()
        self._count = 0

    def add(self, count: int, *, now_s: float) -> None:
        """`count` events happened at `now_s`, which never goes back."""
        self._events.append((now_s, count))
        self._count += count
        self._drop_old(now_s)

    def per_s(self, *, now_s: float) -> float:
        """The rate at `now_s`; 0 when nothing happened within the window."""
        self._drop_old(now_s)
        return self._count / self._window_s

    def _drop_old(self, now_s: float) -> None:
        while self._events and self._events[0][0] <= now_s - self._window_s:
            self._count -= self._events.popleft()[1]


class ReplyMeter:
    """The speed of one reply as its reader sees it: time to first token, tokens per second now and
    overall.
    """

    def __init__(self, *, started_s: float, window_s: float = 1.0) -> None:
        self._started_s = started_s
        self._window_s = window_s
        self._points: deque[tuple[float, int]] = deque()
        self._first: tuple[float, int] | None = None

    def add(self, num_tokens: int, *, now_s: float) -> None:
        """The reply has `num_tokens` tokens in all at `now_s`."""
        if self._first is None:
            self._first = (now_s, num_tokens)
        self._points.append((now_s, num_tokens))
        while len(self._points) > 2 and self._points[1][0] <= now_s - self._window_s:
            self._points.popleft()

    @property
    def ttft_s(self) -> float | None:
        """Seconds from the start to the first token, None before it."""
        return None if self._first is None else self._first[0] - self._started_s

    @property
    def tokens_per_s_now(self) -> float | None:
        """Over the last second or so; None with fewer than two readings."""
        return _slope(self._points[0], self._points[-1]) if len(self._points) > 1 else None

    @property
    def tokens_per_s(self) -> float | None:
        """From the first token to the last; None with fewer than two readings."""
        return (
            _slope(self._first, self._points[-1]) if self._first and len(self._points) > 1 else None
        )


def _slope(first: tuple[float, int], last: tuple[float, int]) -> float | None:
    elapsed_s = last[0] - first[0]
    return (last[1] - first[1]) / elapsed_s if elapsed_s > 0 else None


def num_tokens_of_work(event: GenerationEvent) -> int:
    """What the event tells that was asked of the model: tokens to read anew, or tokens written."""
    match event:
        case Accepted(prompt_tokens=int(prompt), reused_tokens=reused):
            return prompt - (reused or 0)
        case Finished(completion_tokens=written):
            return written
    return 0
