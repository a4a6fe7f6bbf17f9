"""What a conversation's length costs a turn of /v1/responses, over HTTP.

    python -m benchmarks.responses [--lengths 1000,100000] [--turns 15] [--save NAME]

The app runs in a process of its own with the bundled model. For each length a response reads that
many tokens; then turns that go on from it alternate with turns that begin anew, with the same
words. The figure is the time from sending the request to the first word. `read again` counts the
tokens of the history that a turn read a second time. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx
import torch

from benchmarks.lib.app_process import App
from benchmarks.lib.report import Table, about, finish, machine
from falcon_mamba_app.ops.select import select_ops

SENTENCE = "The old man and the dog went down to the river to see what the water had brought. "
TOKENS_PER_SENTENCE = 18  # a little less than it has, so that histories are not too long
TURN = SENTENCE * 3
MAX_HISTORY = 250_000


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn over HTTP: its first word's time, and its response."""

    first_word_s: float
    response: dict[str, Any]

    @property
    def num_read(self) -> int:
        """The tokens that were read for it."""
        usage = self.response["usage"]
        return int(usage["input_tokens"] - usage["input_tokens_details"]["cached_tokens"])


async def turn(http: httpx.AsyncClient, text: str, previous_id: str | None = None) -> Turn:
    """One streamed turn."""
    body = {"input": text, "previous_response_id": previous_id, "max_output_tokens": 2}
    body |= {"stream": True, "temperature": 0}
    started_s, first_s, last = time.perf_counter(), 0.0, {}
    async with http.stream("POST", "/v1/responses", json=body, timeout=3_600) as answer:
        async for line in answer.aiter_lines():
            if line == "event: response.output_text.delta" and not first_s:
                first_s = time.perf_counter()
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
    assert first_s, f"no word came: {last}"
    return Turn(first_s - started_s, last["response"])


async def measure(http: httpx.AsyncClient, length: int, turns: int) -> dict[str, float]:
    """Median seconds to the first word after a history and without one, turn by turn."""
    history = await turn(http, SENTENCE * max(1, length // TOKENS_PER_SENTENCE))
    last, anew, after, num_read = history, [], [], []
    for number in range(turns + 1):
        fresh = await turn(http, TURN)
        last = await turn(http, TURN, last.response["id"])
        if number:  # the first of each kind warms up
            anew.append(fresh.first_word_s)
            after.append(last.first_word_s)
            num_read.append(last.num_read - fresh.num_read)
    ratios = [one / other for one, other in zip(after, anew, strict=True)]
    return {
        "history_tokens": history.response["usage"]["input_tokens"],
        "anew_ms": 1000 * statistics.median(anew),
        "after_ms": 1000 * statistics.median(after),
        "ratio": statistics.median(ratios),
        "read_again": max(num_read),
    }


async def run(lengths: list[int], turns: int, save: str | None) -> None:
    table = Table("history", "first word without", "after it", "ratio", "read again")
    results = []
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        app = App(log, f"--max-prompt-tokens={MAX_HISTORY}")
        try:
            async with aclosing(await app.ready()) as http:
                for length in lengths:
                    row = await measure(http, length, turns)
                    results.append(row)
                    table.add(
                        f"{row['history_tokens']:,} tokens",
                        f"{row['anew_ms']:.1f} ms",
                        f"{row['after_ms']:.1f} ms",
                        f"{row['ratio']:.2f}",
                        f"{row['read_again']} tokens",
                    )
        finally:
            app.end()
    device = torch.device("cpu")
    facts = {**about("responses", device, select_ops(device, "auto")), "machine": machine()}
    finish("A turn's first word, by the history before it", facts, table, {"rows": results}, save)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", default="1000,10000,100000")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--save")
    given = parser.parse_args()
    asyncio.run(run([int(n) for n in given.lengths.split(",")], given.turns, given.save))


if __name__ == "__main__":
    main()
