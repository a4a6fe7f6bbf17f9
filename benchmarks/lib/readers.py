"""People who read replies as they are written: over HTTP in a process of their own, or in this one.

    python -m benchmarks.lib.readers < task.json

The process reads its task from stdin and prints one JSON line. `serving.py` starts it, so that the
readers' own work does not slow the measured server. It has its own HTTP code: a library takes
longer for an event than the server does, so the figures would be those of the readers.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

Body = dict[str, Any]
Chunk = dict[str, Any]


@dataclass(slots=True)
class Reading:
    """What one reader saw: when each piece of text came, and how many tokens there were in all."""

    started_s: float
    times: list[float] = field(default_factory=list)
    text: str = ""
    num_tokens: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0

    @property
    def ttft_s(self) -> float:
        return self.times[0] - self.started_s


@dataclass(frozen=True, slots=True)
class Crowd:
    """Several readers at once, over the time in which all of them read."""

    tokens_per_s: float
    gap_p50_ms: float  # between two pieces of text of one reader
    gap_p99_ms: float


def crowd(readings: list[Reading]) -> Crowd:
    """Raises ValueError where no moment had all of them reading."""
    start = max(reading.times[0] for reading in readings)
    end = min(reading.times[-1] for reading in readings)
    if end <= start:
        raise ValueError("the readers did not read at the same time; ask for longer replies")
    pieces = sum(start < at <= end for reading in readings for at in reading.times)
    # A piece may hold several tokens, where one alone is no whole character.
    tokens_per_piece = sum(r.num_tokens for r in readings) / sum(len(r.times) for r in readings)
    gaps = gaps_s(readings, start, end)
    rate = pieces * tokens_per_piece / (end - start)
    return Crowd(rate, 1_000 * statistics.median(gaps), 1_000 * percentile(gaps, 0.99))


def gaps_s(readings: list[Reading], start: float, end: float) -> list[float]:
    """Seconds between pieces of one reader, for those that came after `start` and by `end`."""
    return [
        later - earlier
        for reading in readings
        for earlier, later in zip(reading.times, reading.times[1:], strict=False)
        if start < later <= end
    ]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


async def stream(url: str, body: Body) -> AsyncGenerator[Chunk, None]:
    """The events of one streamed answer. Raises RuntimeError for any status but 200."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=2**24)
    try:
        data = json.dumps(body).encode()
        head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{status!r}: {(await reader.read(4_000))!r}")
        # The rest of the head, and the lengths of chunks, are no lines of data.
        while line := await reader.readline():
            if line == b"data: [DONE]\n":
                return
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def read(url: str, body: Body) -> Reading:
    """Read one chat reply to its end."""
    reading = Reading(started_s=time.perf_counter())
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with aclosing(stream(f"{url}/v1/chat/completions", asked)) as chunks:
        async for chunk in chunks:
            _take_in(chunk, reading)
    return reading


def _take_in(chunk: Chunk, reading: Reading) -> None:
    if "error" in chunk:
        raise RuntimeError(str(chunk["error"]))
    for choice in chunk["choices"]:
        if text := choice["delta"].get("content"):
            reading.times.append(time.perf_counter())
            reading.text += text
    if usage := chunk.get("usage"):
        reading.num_tokens = usage["completion_tokens"]
        reading.prompt_tokens = usage["prompt_tokens"]
        details = usage.get("prompt_tokens_details") or {}
        reading.reused_tokens = details.get("cached_tokens") or 0


async def read_together(url: str, bodies: list[Body]) -> Chunk:
    """Every body read by a reader of its own, all at once."""
    return asdict(crowd(await asyncio.gather(*(read(url, body) for body in bodies))))


async def read_beside_a_long_prompt(
    url: str, bodies: list[Body], long_body: Body, idle_s: float
) -> Chunk:
    """Gaps before, and while, the long prompt of somebody else is read.

    The replies of `bodies` must be long enough to last; they are left when the prompt is read.
    """
    readings = [Reading(started_s=time.perf_counter()) for _ in bodies]
    tasks = [
        asyncio.create_task(_read_into(reading, url, body))
        for reading, body in zip(readings, bodies, strict=True)
    ]
    try:
        while not all(reading.times for reading in readings):
            await asyncio.sleep(0.01)
        idle_from = time.perf_counter()
        await asyncio.sleep(idle_s)
        busy_from = time.perf_counter()
        long = await read(url, long_body)
        if any(task.done() for task in tasks):
            raise RuntimeError("a reply ended before the long prompt was read")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    idle = gaps_s(readings, idle_from, busy_from)
    busy = gaps_s(readings, busy_from, long.times[0])
    return {
        "idle_p50_ms": 1_000 * statistics.median(idle),
        "idle_p99_ms": 1_000 * percentile(idle, 0.99),
        "busy_p50_ms": 1_000 * statistics.median(busy),
        "busy_p99_ms": 1_000 * percentile(busy, 0.99),
        "prompt_tokens": long.prompt_tokens,
        "prompt_s": long.ttft_s,
    }


async def _read_into(reading: Reading, url: str, body: Body) -> None:
    asked = {**body, "stream": True}
    async with aclosing(stream(f"{url}/v1/chat/completions", asked)) as chunks:
        async for chunk in chunks:
            _take_in(chunk, reading)


async def read_turns(url: str, body: Body, first: str, later: str, num_turns: int) -> Chunk:
    """A conversation that begins with `first`, each turn after that being `later`: the time to the
    first text of every turn, and the history each one had.
    """
    messages: list[dict[str, str]] = []
    turns: list[Chunk] = []
    for text in [first, *[later] * num_turns]:
        messages.append({"role": "user", "content": text})
        reading = await read(url, {**body, "messages": messages})
        messages.append({"role": "assistant", "content": reading.text})
        turns.append(
            {
                "ttft_ms": 1_000 * reading.ttft_s,
                "prompt_tokens": reading.prompt_tokens,
                "reused_tokens": reading.reused_tokens,
            }
        )
    return {"turns": turns}


async def read_fresh_turns(url: str, body: Body, later: str, num_turns: int) -> Chunk:
    """As `read_turns`, each turn in a conversation of its own that has no history."""
    turns = []
    for number in range(num_turns):
        fresh = {**body, "prompt_cache_key": f"{body['prompt_cache_key']}-{number}"}
        turns += (await read_turns(url, fresh, later, later, 0))["turns"]
    return {"turns": turns}


TASKS: dict[str, Callable[..., Any]] = {
    task.__name__: task
    for task in (read_together, read_beside_a_long_prompt, read_turns, read_fresh_turns)
}


async def in_own_process(task: Callable[..., Any], **arguments: Any) -> Chunk:
    """The result of one of the tasks above, run by a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.lib.readers"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    question = json.dumps({"task": task.__name__, "arguments": arguments}).encode()
    output, _ = await process.communicate(question)
    if process.returncode:
        raise RuntimeError(f"the readers ended with status {process.returncode}")
    result: Chunk = json.loads(output.splitlines()[-1])
    return result


def main() -> None:
    question = json.load(sys.stdin)
    print(json.dumps(asyncio.run(TASKS[question["task"]](**question["arguments"]))))


if __name__ == "__main__":
    main()
