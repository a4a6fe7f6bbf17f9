"""One reply on its way to the page: the service's events in, a bounded number of updates out.

The service is read as fast as it writes; the page is told at most once per `interval_s`, but of the
first text at once. Knows no components and no conversations.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Literal

from falcon_mamba_app.metrics import ReplyMeter
from falcon_mamba_app.protocol import (
    Accepted,
    Finished,
    FinishReason,
    GenerationEvent,
    PrefillProgress,
    TextDelta,
    Waiting,
)

# 12 updates a second look continuous; each costs the server a millisecond or more.
UPDATE_INTERVAL_S = 1 / 12

Phase = Literal["starting", "waiting", "prefilling", "decoding", "finished", "stopped", "failed"]


class Turn:
    """The consumer of one stream of events. `stop` may be called from any handler."""

    def __init__(self, events: AsyncGenerator[GenerationEvent, None]) -> None:
        self._events = events
        self._inbox: list[GenerationEvent] = []
        self._has_news = asyncio.Event()
        self._is_urgent = asyncio.Event()  # the first text or the end: worth no further delay
        self._task: asyncio.Task[None] | None = None
        self.is_stopped = False

    def stop(self) -> None:
        """Close the service's generator now; `batches` then ends with what had arrived."""
        self.is_stopped = True
        if self._task is not None:
            self._task.cancel()

    async def batches(
        self, interval_s: float = UPDATE_INTERVAL_S
    ) -> AsyncGenerator[list[GenerationEvent], None]:
        """The events in order, in batches. Raises what the service raised; closing it stops."""
        if self.is_stopped:
            return
        self._task = asyncio.create_task(self._read())
        self._task.add_done_callback(lambda _: self._ring())
        try:
            while not self._task.done() or self._inbox:
                await self._has_news.wait()
                self._has_news.clear()
                batch, self._inbox = self._inbox, []
                if batch:
                    yield batch
                    await self._pause(interval_s, after=batch)
            if not self.is_stopped:
                self._task.result()
        finally:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _read(self) -> None:
        has_text = False
        async with aclosing(self._events):
            async for event in self._events:
                self._inbox.append(event)
                self._has_news.set()
                if isinstance(event, TextDelta) and not has_text:
                    has_text = True
                    self._is_urgent.set()

    def _ring(self) -> None:
        self._has_news.set()
        self._is_urgent.set()

    async def _pause(self, interval_s: float, *, after: list[GenerationEvent]) -> None:
        assert self._task is not None
        was_told = any(isinstance(event, TextDelta) for event in after)
        if was_told and not self._task.done():
            self._is_urgent.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_urgent.wait(), interval_s)


@dataclass(slots=True, kw_only=True)
class Reply:
    """What is known so far of one reply. None means "not known (yet)"."""

    meter: ReplyMeter
    phase: Phase = "starting"
    text: str = ""
    queue_position: int | None = None
    computed_tokens: int | None = None
    prompt_tokens: int | None = None
    reused_tokens: int | None = None
    completion_tokens: int = 0
    finish_reason: FinishReason | None = None
    measured: Finished | None = None  # the service's own figures, once the reply is complete
    error: str | None = None  # a sentence for the visitor, when the phase is "failed"
    parts: list[str] = field(default_factory=list)

    @property
    def context_tokens(self) -> int | None:
        """Tokens the model has read or written so far, this reply included."""
        if self.phase == "prefilling":
            return self.computed_tokens
        return None if self.prompt_tokens is None else self.prompt_tokens + self.completion_tokens

    @property
    def is_over(self) -> bool:
        return self.phase in ("finished", "stopped", "failed")

    @property
    def ttft_s(self) -> float | None:
        """Seconds to the first token: the service's figure when it is known, else ours."""
        measured = self.measured.ttft_s if self.measured else None
        return self.meter.ttft_s if measured is None else measured

    @property
    def tokens_per_s_now(self) -> float | None:
        """Over the last second; of the whole reply once it is over, or too young for a window."""
        now = None if self.is_over else self.meter.tokens_per_s_now
        return self.tokens_per_s if now is None else now

    @property
    def tokens_per_s(self) -> float | None:
        """Of the whole reply, from its first token to its last."""
        if self.measured and self.measured.decode_s and self.measured.completion_tokens > 1:
            return (self.measured.completion_tokens - 1) / self.measured.decode_s
        return self.meter.tokens_per_s

    def apply(self, event: GenerationEvent, *, now_s: float) -> None:
        """Take one event in."""
        match event:
            case Waiting():
                self.phase, self.queue_position = "waiting", event.position
            case Accepted():
                self.phase = "prefilling"
                self.prompt_tokens, self.reused_tokens = event.prompt_tokens, event.reused_tokens
                self.computed_tokens = event.reused_tokens
            case PrefillProgress():
                self.phase, self.computed_tokens = "prefilling", event.computed_tokens
            case TextDelta():
                self.phase, self.completion_tokens = "decoding", event.completion_tokens
                self.parts.append(event.text)
                self.meter.add(event.completion_tokens, now_s=now_s)
            case Finished():
                self._finish(event)

    def apply_all(self, events: list[GenerationEvent], *, now_s: float) -> None:
        """Take a batch in."""
        for event in events:
            self.apply(event, now_s=now_s)
        self.text = "".join(self.parts)
        self.parts = [self.text]

    def _finish(self, event: Finished) -> None:
        self.phase, self.finish_reason, self.measured = "finished", event.reason, event
        if event.prompt_tokens is not None:
            self.prompt_tokens = event.prompt_tokens
        if event.reused_tokens is not None:
            self.reused_tokens = event.reused_tokens
        self.completion_tokens = event.completion_tokens


def describe(reply: Reply) -> str:
    """The reply's status as one short sentence, for the status line."""
    match reply.phase:
        case "waiting":
            return f"Waiting in line: number {reply.queue_position}"
        case "prefilling":
            return _describe_prefill(reply)
        case "decoding":
            return "Writing"
        case "finished" if reply.finish_reason == "length":
            return f"Done: the limit of {reply.completion_tokens:,} new tokens was reached"
        case "finished":
            return "Done"
        case "stopped":
            return "Stopped"
        case "failed":
            return "Broken off" if reply.text else "Not answered"
        case _:
            return "Sending"


def _describe_prefill(reply: Reply) -> str:
    if not reply.prompt_tokens or reply.computed_tokens is None:
        return "Reading"
    percent = 100 * reply.computed_tokens // reply.prompt_tokens
    return f"Reading {percent} % of {reply.prompt_tokens:,} tokens"
