"""Memory against context: one long text is read, and what it takes is told on the way.

The state has the same size at every token. The process's memory is measured where the text is read,
with everybody else's work in it.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from falcon_mamba_app.lab.asking import Asker, HeldBack
from falcon_mamba_app.lab.texts import refuse_too_long
from falcon_mamba_app.metrics import ReplyMeter
from falcon_mamba_app.protocol import (
    Accepted,
    Finished,
    GenerationRequest,
    PrefillProgress,
    SamplingParams,
    TokenIds,
    Waiting,
)

MAX_POINTS = 3_000
MIN_TOKENS, MAX_TOKENS = 1_000, 1_000_000
MAX_WRITTEN = 256


@dataclass(frozen=True, slots=True)
class Point:
    """What is known when `tokens` have been read. Bytes are None where they are not known."""

    tokens: int
    seconds: float  # since the reading began
    tokens_per_s: float | None  # over the last second
    state_bytes: int | None
    process_bytes: int | None
    gpu_bytes: int | None


@dataclass(frozen=True, slots=True)
class Grown:
    """The end: how long all of it took, and the speed of writing after it."""

    tokens: int
    seconds: float
    tokens_per_s: float | None
    written: int
    write_tokens_per_s: float | None


GrowthEvent = Waiting | HeldBack | Point | Grown


async def grow(
    asker: Asker,
    ids: array[int],
    *,
    num_written: int,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[GrowthEvent, None]:
    """Read the ids and write `num_written` tokens after them. Closing it ends the reading.

    Raises PromptTooLong, and what a service raises.
    """
    refuse_too_long(len(ids), asker.model)
    request = GenerationRequest(
        prompt=TokenIds(ids),
        sampling=SamplingParams(temperature=0.0, max_new_tokens=num_written, ignore_eos=True),
        only_reads=num_written == 0,
    )
    begun_s, seconds, num_told = clock(), 0.0, 0
    least = -(-len(ids) // MAX_POINTS)
    meter = ReplyMeter(started_s=begun_s)
    async with aclosing(asker.ask(request)) as events:
        async for event in events:
            match event:
                case Waiting() | HeldBack():
                    begun_s = clock()
                    yield event
                case Accepted():  # it comes with the first part that was read
                    meter.add(0, now_s=begun_s)
                    yield _point(asker, 0, 0.0, None)
                case PrefillProgress(computed_tokens=num_tokens):
                    now_s = clock()
                    seconds = now_s - begun_s
                    meter.add(num_tokens, now_s=now_s)
                    if num_tokens - num_told >= least or num_tokens >= len(ids) - 1:
                        num_told = num_tokens
                        yield _point(asker, num_tokens, seconds, meter.tokens_per_s_now)
                case Finished():
                    yield _end(event, len(ids), seconds)


def _point(asker: Asker, num_tokens: int, seconds: float, rate: float | None) -> Point:
    stats = asker.service.stats()
    return Point(
        num_tokens,
        round(seconds, 4),
        None if rate is None else round(rate, 1),
        asker.model.state_bytes,
        stats.process_memory_bytes,
        stats.gpu_memory_bytes,
    )


def _end(event: Finished, num_tokens: int, seconds: float) -> Grown:
    written, decode_s = event.completion_tokens, event.decode_s
    return Grown(
        tokens=event.prompt_tokens or num_tokens,
        seconds=round(seconds, 4),
        tokens_per_s=round(num_tokens / seconds, 1) if seconds else None,
        written=written,
        write_tokens_per_s=round((written - 1) / decode_s, 1) if decode_s and written > 1 else None,
    )
