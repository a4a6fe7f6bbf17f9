"""What the app with the bundled model takes of a CPU server's memory.

    python -m benchmarks.memory [--turns 20] [--prompt-tokens 32000] [--compiled] [--save NAME]

The resident memory that /metrics tells of the process, at its very first start, which compiles the
kernels, and at a later one, then after turns, a long prompt and one that is scored. What it keeps
for visitors stays within --snapshot-bytes and is in the figures. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import httpx
import torch

from benchmarks.lib.gauges import gauges
from benchmarks.lib.report import Table, about, finish
from benchmarks.startup import starting, wait_until_ready
from falcon_mamba_app.ops.select import select_ops


def memory_gb(address: str, gauge: str = "process_memory_bytes") -> float:
    """The memory of the app's process, as /metrics reports it."""
    text = httpx.get(f"{address}/metrics").raise_for_status().text
    return gauges(text)[gauge] / 1e9


def _ask(address: str, endpoint: str, **body: Any) -> dict[str, Any]:
    reply = httpx.post(f"{address}/v1/{endpoint}", json=body, timeout=600)
    reply.raise_for_status()
    return reply.json()  # type: ignore[no-any-return]


def converse(address: str, num_turns: int) -> None:
    """One conversation."""
    messages: list[dict[str, str]] = []
    for turn in range(num_turns):
        messages.append({"role": "user", "content": f"Tell me a story about {turn + 2} cats."})
        body = {"messages": messages, "max_tokens": 100, "prompt_cache_key": "memory"}
        messages.append(_ask(address, "chat/completions", **body)["choices"][0]["message"])


def read(address: str, num_tokens: int) -> None:
    """A long prompt, and a few words in reply."""
    _ask(address, "completions", prompt=[500] * num_tokens, max_tokens=10)


def score(address: str, num_tokens: int) -> None:
    """A long prompt's logprobs alone."""
    wish = {"echo": True, "logprobs": 1, "max_tokens": 0}
    _ask(address, "completions", prompt=[500] * num_tokens, **wish)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--prompt-tokens", type=int, default=32_000)
    parser.add_argument(
        "--compiled", action="store_true", help="leave out the very first start, which compiles"
    )
    parser.add_argument("--save", help="name of the files in results/")
    args = parser.parse_args()
    table, figures = Table("the app", "GB"), {}

    def add(name: str, gb: float) -> None:
        figures[name] = round(gb, 3)
        table.add(name, f"{gb:.2f}")

    with tempfile.TemporaryDirectory() as folder:
        place = {} if args.compiled else {"NUMBA_CACHE_DIR": folder}
        if not args.compiled:
            with starting(**place) as address:
                wait_until_ready(address)
                add("ready, at the very first start", memory_gb(address))
        with starting(**place) as address:
            wait_until_ready(address)
            add("ready, at a later start", memory_gb(address))
            converse(address, args.turns)
            add(f"after {args.turns} turns of one conversation", memory_gb(address))
            read(address, args.prompt_tokens)
            add(f"after a prompt of {args.prompt_tokens:,} tokens", memory_gb(address))
            score(address, args.prompt_tokens)
            add("after one of that length that was scored", memory_gb(address))
            add("the most it was", memory_gb(address, "process_memory_peak_bytes"))
    device = torch.device("cpu")
    facts = about("memory", device, select_ops(device, "auto"))
    finish("Memory on a CPU", facts, table, {"memory_gb": figures}, args.save)


if __name__ == "__main__":
    main()
