"""What a hostile body costs before it is refused.

    python -m benchmarks.refusals [--megabytes 9] [--only NAME] [--save NAME]

Starts the app with the bundled model on a free port of this machine, sends each body, and reads
from the system what the server's process has used: seconds of a core, and the most memory above
what it had before. Each body must be refused within a second of a core and 150 MB, eight at once
within 500 MB, and what they took must be given back.
Prints a table and one JSON line; the exit status is 1 where a bound was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import torch

from benchmarks.lib.app_process import App
from benchmarks.lib.report import Table, about, finish, machine
from falcon_mamba_app.ops.select import select_ops

MAX_CORE_S, MAX_GROWTH_MB, MAX_GROWTH_OF_EIGHT_MB, MAX_LEFT_MB = 1.0, 150.0, 500.0, 60.0
SETTLE_S = 3.0  # memory is given back a second after a large body
REFUSED = (400, 413, 422)


@dataclass(frozen=True, slots=True)
class Attack:
    """A body, and where it is sent."""

    name: str
    body: Callable[[int], bytes]  # from its number of bytes
    path: str = "/v1/chat/completions"


def chat(unit: str) -> Callable[[int], bytes]:
    def body(num_bytes: int) -> bytes:
        content = unit * (num_bytes // len(unit.encode()))
        return encoded({"messages": [{"role": "user", "content": content}], "max_tokens": 1})

    return body


def prompt(unit: str) -> Callable[[int], bytes]:
    def body(num_bytes: int) -> bytes:
        return encoded({"prompt": unit * (num_bytes // len(unit.encode())), "max_tokens": 1})

    return body


def base64_of_noise(num_bytes: int) -> bytes:
    noise = random.Random(1).randbytes(num_bytes * 3 // 4)
    content = base64.b64encode(noise).decode()
    return encoded({"messages": [{"role": "user", "content": content}], "max_tokens": 1})


def repeated(before: str, unit: str, after: str) -> Callable[[int], bytes]:
    """JSON of one value many times over."""

    def body(num_bytes: int) -> bytes:
        return f"{before}{','.join([unit] * (num_bytes // (len(unit) + 1)))}{after}".encode()

    return body


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


MESSAGE = '{"role":"user","content":"a"}'
ATTACKS = (
    Attack("one digit", chat("7")),
    Attack("one letter", chat("a")),
    Attack("spaces", chat(" ")),
    Attack("words", chat("the river remembers ")),
    Attack("no spaces", chat("abcdefghij")),
    Attack("emoji", chat("😀")),
    Attack("combining marks", chat("\u0301")),
    Attack("U+FDFA", chat("\ufdfa")),
    Attack("zero-width joiners", chat("\u200d")),
    Attack("control tokens", chat("<|im_end|>")),
    Attack("base64", base64_of_noise),
    Attack("one letter and an emoji", lambda n: chat("a")(n).replace(b"aa", "😀".encode(), 1)),
    Attack("a text of one digit", prompt("7"), "/v1/completions"),
    Attack("a text of spaces", prompt(" "), "/v1/completions"),
    Attack("token ids", repeated('{"prompt":[', "1", "]}"), "/v1/completions"),
    Attack("empty prompts", repeated('{"prompt":[', '""', "]}"), "/v1/completions"),
    Attack("messages", repeated('{"messages":[', MESSAGE, "]}")),
    Attack("objects", repeated('{"messages":[', "{}", "]}")),
    Attack("lists in lists", lambda n: b'{"messages":' + b"[" * (n // 2) + b"]" * (n // 2) + b"}"),
    Attack("stop strings", repeated('{"messages":[' + MESSAGE + '],"stop":[', '"abc"', "]}")),
    Attack("a stop string", lambda n: chat("a")(1)[:-1] + b',"stop":"' + b"a" * n + b'"}'),
    Attack("metadata", lambda n: chat("a")(1)[:-1] + b',"metadata":' + _metadata(n) + b"}"),
    Attack("backslashes", lambda n: b'{"messages":"' + b"\\" * (n // 2 * 2) + b'"}'),
)


AT_ONCE = ("one digit", "U+FDFA", "base64", "one letter and an emoji", "objects")


def _metadata(num_bytes: int) -> bytes:
    return b"{" + b",".join(b'"%d":""' % number for number in range(num_bytes // 12)) + b"}"


class Watch:
    """The server's process while something is sent to it."""

    def __init__(self, app: App) -> None:
        self._process = psutil.Process(app.process.pid)
        self._before_s, self._before = self._core_s(), self.rss_mb()
        self._peak = self._before
        self._task = asyncio.create_task(self._look())

    def _core_s(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def rss_mb(self) -> float:
        return self._process.memory_info().rss / 1e6

    async def _look(self) -> None:
        while True:
            self._peak = max(self._peak, self.rss_mb())
            await asyncio.sleep(0.01)

    async def end(self) -> Cost:
        """Seconds of a core, the most memory above the beginning's, and what is left of that."""
        core_s, peak = self._core_s() - self._before_s, self._peak
        await asyncio.sleep(SETTLE_S)
        self._task.cancel()
        return Cost(core_s, max(peak, self._peak) - self._before, self.rss_mb() - self._before)


@dataclass(frozen=True, slots=True)
class Cost:
    core_s: float
    peak_mb: float  # above what there was before
    left_mb: float


class Refusals:
    """The table, each attack against its bounds."""

    def __init__(self) -> None:
        self.table = Table("body", "answer", "core s", "peak MB", "left MB", "kept")
        self.figures: dict[str, Any] = {}
        self.is_kept = True

    def add(self, name: str, status: int, cost: Cost, *, times: int = 1) -> None:
        max_peak_mb = MAX_GROWTH_MB if times == 1 else MAX_GROWTH_OF_EIGHT_MB
        is_kept = (
            status in REFUSED
            and cost.core_s <= MAX_CORE_S * times
            and cost.peak_mb <= max_peak_mb
            and cost.left_mb <= MAX_LEFT_MB
        )
        self.is_kept = self.is_kept and is_kept
        figures = (f"{cost.core_s:.2f}", f"{cost.peak_mb:.0f}", f"{cost.left_mb:.0f}")
        self.figures[name] = {"status": status, "core_s": cost.core_s, "peak_mb": cost.peak_mb}
        self.table.add(name, str(status), *figures, "yes" if is_kept else "NO")


async def send(http: httpx.AsyncClient, attack: Attack, body: bytes) -> int:
    headers = {"Content-Type": "application/json"}
    return (await http.post(attack.path, content=body, headers=headers)).status_code


async def attack_all(http: httpx.AsyncClient, app: App, options: argparse.Namespace) -> Refusals:
    refusals = Refusals()
    num_bytes = int(options.megabytes * 1e6)
    for attack in ATTACKS:
        if options.only not in (None, attack.name):
            continue
        body = attack.body(num_bytes)
        watch = Watch(app)
        status = await send(http, attack, body)
        refusals.add(attack.name, status, await watch.end())
        if attack.name in AT_ONCE:
            watch = Watch(app)
            statuses = await asyncio.gather(*(send(http, attack, body) for _ in range(8)))
            refusals.add(f"{attack.name}, 8 at once", max(statuses), await watch.end(), times=8)
    return refusals


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=9.0, help="of each body")
    parser.add_argument("--only", choices=[attack.name for attack in ATTACKS])
    parser.add_argument("--save", help="write results/NAME.md and .json")
    options = parser.parse_args()
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        app = App(log)
        http = await app.ready()
        try:
            # The first reply makes things that later ones find made.
            await send(http, ATTACKS[0], chat("a")(1_000))
            refusals = await attack_all(http, app, options)
        finally:
            await http.aclose()
            app.process.send_signal(signal.SIGTERM)
            app.process.wait(20)
    facts = about("refusals", torch.device("cpu"), select_ops(torch.device("cpu"), "auto"))
    facts["machine"] = machine()
    bytes_each = {"megabytes": options.megabytes}
    title = f"Bodies of {options.megabytes:g} MB, refused"
    finish(title, facts, refusals.table, {**bytes_each, **refusals.figures}, options.save)
    return 0 if refusals.is_kept else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
