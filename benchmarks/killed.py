"""What clients see when the server is killed under load and started again, over and over.

    python -m benchmarks.killed [--kills 20] [--clients 4] [--seed 1] [--save NAME]

Starts the app with the bundled model, lets clients of the API stream replies without a pause, and
kills it (SIGKILL) at a random moment (the seed decides) of each life; the next one listens at the
same address. A client may see a broken reply, a refused connection, and 503 while the model loads;
anything else is an error. After each start the same question must have the same answer, the log of
a life must hold no more than what a start says, and at the end nothing may be left running.
Prints a table and one JSON line; the exit status is 1 where a bound was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median

import httpx
import torch

from benchmarks.lib.app_process import App
from benchmarks.lib.gauges import gauges
from benchmarks.lib.report import Table, about, finish
from falcon_mamba_app.ops.select import select_ops

CHAT = "/v1/chat/completions"
MAX_LIFE_S = 2.0  # under load, from the moment it is ready
MAX_LEFT_S = 10.0  # until nothing runs any more
MAX_LOG_LINES = 12  # of one life: what a start says
ALLOWED = frozenset({"whole", "broken", "refused", "loading"})
STREAM = {"max_tokens": 60, "stream": True, "ignore_eos": True, "prompt_cache_key": "k"}
QUESTION = {
    "messages": [{"role": "user", "content": "Who are you?"}],
    "max_tokens": 12,
    "temperature": 0,
}


async def ask_once(http: httpx.AsyncClient, name: str) -> str:
    """One streamed reply, and how it ended for its reader."""
    body = {**STREAM, "messages": [{"role": "user", "content": f"I am {name}. Tell me a story"}]}
    has_answer = False
    try:
        async with http.stream("POST", CHAT, json=body) as answer:
            has_answer = True
            if answer.status_code == 503:
                return "loading" if "retry-after" in answer.headers else "503 without Retry-After"
            if answer.status_code != 200:
                return str(answer.status_code)
            text = "".join([part async for part in answer.aiter_text()])
            return "whole" if text.endswith("data: [DONE]\n\n") else "cut without an error"
    except httpx.ConnectError:
        return "refused"
    except httpx.TransportError as error:
        is_cut = has_answer or isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)
        return "broken" if is_cut else type(error).__name__


async def go_on(http: httpx.AsyncClient, name: str, seen: Counter[str]) -> None:
    """A client that asks again whatever happens; a little later where it was not answered."""
    while True:
        outcome = await ask_once(http, name)
        seen[outcome] += 1
        if outcome != "whole":
            await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Life:
    """What one process did until it was killed."""

    ready_s: float
    answer: str
    log: list[str]


async def live(port: int, until: Callable[[httpx.AsyncClient], Awaitable[object]]) -> Life:
    """One life of the server; it is killed when `until` returns."""
    with tempfile.NamedTemporaryFile("w") as log:
        app = App(log, f"--port={port}")
        try:
            started_s = time.monotonic()
            http = await app.ready()
            ready_s = time.monotonic() - started_s
            answer = (await http.post(CHAT, json=QUESTION)).json()
            await until(http)
            await http.aclose()
        finally:
            app.end()
        said = answer["choices"][0]["message"]["content"]
        return Life(ready_s, said, app.output.splitlines())


async def measure(
    kills: int, num_clients: int, seed: int
) -> tuple[list[Life], Counter[str], float]:
    """All lives, what the clients saw, and the sequences left running after the clients."""
    chance, seen, left = random.Random(seed), Counter[str](), -1.0
    port = free_port()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as caller:
        clients = [
            asyncio.create_task(go_on(caller, f"client {n}", seen)) for n in range(num_clients)
        ]

        async def a_while(http: httpx.AsyncClient) -> None:
            await asyncio.sleep(chance.uniform(0, MAX_LIFE_S))

        async def served_again_and_left(http: httpx.AsyncClient) -> None:
            nonlocal left
            before = seen["whole"]
            while seen["whole"] < before + num_clients:
                await asyncio.sleep(0.05)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            ends_s = time.monotonic() + MAX_LEFT_S
            while (left := await num_running(http)) and time.monotonic() < ends_s:
                await asyncio.sleep(0.05)

        lives = [await live(port, a_while) for _ in range(kills)]
        lives.append(await live(port, served_again_and_left))
    return lives, seen, left


async def num_running(http: httpx.AsyncClient) -> float:
    return gauges((await http.get("/metrics")).text)["sequences_running"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save")
    options = parser.parse_args()
    lives, seen, left = asyncio.run(measure(options.kills, options.clients, options.seed))
    lines = max(len(life.log) for life in lives)
    errors = sum(number for outcome, number in seen.items() if outcome not in ALLOWED)
    answers = len({life.answer for life in lives})
    is_kept = not errors and not left and answers == 1 and lines <= MAX_LOG_LINES
    table = Table("what", "seen")
    table.add("kills", str(options.kills))
    table.add("start to ready, median", f"{median(life.ready_s for life in lives):.1f} s")
    for outcome, number in sorted(seen.items()):
        table.add(f"replies: {outcome}", str(number))
    table.add("different answers to one question", f"{answers} (allowed 1)")
    table.add("log lines of a life, most", f"{lines} (allowed {MAX_LOG_LINES})")
    table.add("sequences left running", f"{left:g}")
    device = torch.device("cpu")
    finish(
        f"Killed {options.kills} times under {options.clients} clients",
        about("killed", device, select_ops(device, "auto")),
        table,
        {
            "kills": options.kills,
            "clients": options.clients,
            "outcomes": dict(seen),
            "errors": errors,
            "answers": answers,
            "log_lines": lines,
            "sequences_running_left": left,
            "is_kept": is_kept,
        },
        options.save,
    )
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
