"""A newcomer's wait while another visitor keeps the longest prompts in line.

    python -m benchmarks.fairness [--rounds 8] [--prompt-tokens 120000] [--save NAME]

One visitor asks for as many replies to prompts of the longest kind as it may, and asks again when
one ends. Another asks one short question after the other. Its time to first token must stay below
three times that of an idle server, and one chunk of a prompt. Exit status 1 where it does not.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

import httpx
import torch

from benchmarks.lib.gauges import gauges
from benchmarks.lib.report import Table, about, finish
from benchmarks.startup import starting, wait_until_ready
from falcon_mamba_app.ops.select import select_ops

CROWD, NEWCOMER = "203.0.113.7", "198.51.100.9"  # addresses for documentation
PROMPTS_IN_LINE = 8  # the most that one visitor may have in line
CHUNK_TOKENS = 512  # of a prompt, on a CPU
SETTLE_S = 3.0  # the rate of reading is over the last seconds
ALLOWED = {
    "FALCON_MAMBA_TRUSTED_PROXIES": "127.0.0.1",
    "FALCON_MAMBA_VISITOR_REPLIES_PER_MINUTE": "0",
    "FALCON_MAMBA_VISITOR_TOKENS_PER_MINUTE": "0",
}


async def first_token_s(http: httpx.AsyncClient) -> float:
    """Seconds from a short question to the first word of its answer."""
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "stream": True}
    started_s = time.perf_counter()
    headers = {"X-Forwarded-For": NEWCOMER}
    url = "/v1/chat/completions"
    async with http.stream("POST", url, json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if '"content":"' in line and '"content":""' not in line:
                return time.perf_counter() - started_s
    raise AssertionError("a reply without a word")


async def ask_for_ever(http: httpx.AsyncClient, prompt: list[int]) -> None:
    """Keep one of the crowd's places in line filled."""
    body = {"prompt": prompt, "max_tokens": 1}
    while True:
        headers = {"X-Forwarded-For": CROWD}
        await http.post("/v1/completions", json=body, headers=headers, timeout=None)


async def measure(address: str, options: argparse.Namespace) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=address, timeout=600) as http:
        await first_token_s(http)
        idle = [await first_token_s(http) for _ in range(options.rounds)]
        generator = torch.Generator().manual_seed(0)
        size = (options.prompt_tokens,)
        crowd = [
            asyncio.create_task(
                ask_for_ever(http, torch.randint(100, 8_000, size, generator=generator).tolist())
            )
            for _ in range(PROMPTS_IN_LINE)
        ]
        try:
            while (await figures(http))["sequences_running"] < PROMPTS_IN_LINE:
                await asyncio.sleep(0.2)
            await asyncio.sleep(SETTLE_S)
            while not (speed := (await figures(http))["prefill_tokens_per_second"]):
                await asyncio.sleep(0.2)
            busy = [await first_token_s(http) for _ in range(options.rounds)]
        finally:
            for task in crowd:
                task.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
    return {
        "idle_s": statistics.median(idle),
        "busy_s": statistics.median(busy),
        "busy_max_s": max(busy),
        "chunk_s": CHUNK_TOKENS / speed,
        "prefill_tokens_per_s": speed,
    }


async def figures(http: httpx.AsyncClient) -> dict[str, float]:
    return gauges((await http.get("/metrics")).text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=120_000)
    parser.add_argument("--save")
    options = parser.parse_args()
    with starting(**ALLOWED) as address:
        wait_until_ready(address)
        measured = asyncio.run(measure(address, options))
    bound_s = 3 * measured["idle_s"] + measured["chunk_s"]
    is_kept = measured["busy_s"] <= bound_s
    table = Table("a short question's first token", "seconds")
    table.add("on an idle server, median", f"{measured['idle_s']:.3f}")
    prompts = f"{PROMPTS_IN_LINE} × {options.prompt_tokens:,} tokens"
    table.add(f"while another visitor has {prompts} in line, median", f"{measured['busy_s']:.3f}")
    table.add("the same, slowest", f"{measured['busy_max_s']:.3f}")
    table.add("allowed: 3 × idle + one chunk of a prompt", f"{bound_s:.3f}")
    device = torch.device("cpu")
    finish(
        "A newcomer beside somebody with the longest prompts",
        about("fairness", device, select_ops(device, "auto")),
        table,
        {**measured, "bound_s": bound_s, "is_kept": is_kept},
        options.save,
    )
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
