"""Whether anything that a visitor sends makes the others wait.

    python -m benchmarks.stall [--only WORDS] [--note TEXT] [--save NAME]
    python -m benchmarks.stall --quick --address http://127.0.0.1:PORT

Starts the app with the bundled model, asks it for /health every 20 ms from another process, and
sends it each attack of lib/attacks.py from this one. Each row has its bound: 99 of 100 answers
within 100 ms, all within 250 ms, and a minute later at most a tenth more memory than before. The
quick form takes some of the attacks, and a server that runs and trusts this machine as its proxy;
its bounds are multiples of what the same server did undisturbed, so that they hold on a busy
machine too. Prints a table and one JSON line; the exit status is 1 where a bound was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.lib.attacks import ATTACKS, Attack, Target
from benchmarks.lib.health import HealthProbe, probing

MAX_P99_MS, MAX_MS = 100.0, 250.0
# Bounds of the quick form: multiples of the undisturbed times, plus a busy machine's delay.
MAX_RATIO, SLACK_MS = 10.0, 400.0
MAX_GROWTH = 1.1
QUICK_TRIES = 3
GIVEN_BACK_S = 60.0
IDLE_S, AFTER_S = 2.0, 0.5
HEADS = ("attack", "answered", "took s", "p50 ms", "p99 ms", "max ms", "memory MiB", "kept")


@dataclass(frozen=True, slots=True)
class Row:
    """What one attack did to /health, and to the server's memory before and after it."""

    name: str
    answered: str
    took_s: float
    answers_ms: list[float]
    memory_mib: tuple[float, float] | None = None

    def quantile(self, share: float) -> float:
        return self.answers_ms[min(len(self.answers_ms) - 1, int(share * len(self.answers_ms)))]

    @property
    def max_ms(self) -> float:
        return self.answers_ms[-1]

    def cells(self, *, is_kept: bool) -> list[str]:
        memory = "" if self.memory_mib is None else "{:.0f} → {:.0f}".format(*self.memory_mib)
        times = [f"{ms:.1f}" for ms in (self.quantile(0.5), self.quantile(0.99), self.max_ms)]
        kept = "yes" if is_kept else "NO"
        return [self.name, self.answered, f"{self.took_s:.1f}", *times, memory, kept]

    def figures(self) -> dict[str, object]:
        return {
            "attack": self.name,
            "answered": self.answered,
            "p50_ms": round(self.quantile(0.5), 2),
            "p99_ms": round(self.quantile(0.99), 2),
            "max_ms": round(self.max_ms, 2),
            "memory_mib": self.memory_mib,
        }


async def measure(attack: Attack, target: Target, probe: HealthProbe) -> Row:
    """One attack, and the moment after it."""
    start_s = time.monotonic()
    try:
        answered = await asyncio.wait_for(attack.run(target), 120)
    except TimeoutError:
        answered = "no end after 120 s"
    took_s = time.monotonic() - start_s
    await asyncio.sleep(AFTER_S)
    end_s = time.monotonic()
    await asyncio.to_thread(probe.wait_past, end_s)
    return Row(attack.name, answered, took_s, probe.between(start_s, end_s))


async def _idle(_: Target) -> str:
    await asyncio.sleep(IDLE_S)
    return ""


IDLE = Attack("nothing", _idle)


def is_within(row: Row) -> bool:
    """The bounds of a machine with nothing else to do."""
    has_given_back = row.memory_mib is None or row.memory_mib[1] <= MAX_GROWTH * row.memory_mib[0]
    return row.quantile(0.99) <= MAX_P99_MS and row.max_ms <= MAX_MS and has_given_back


def is_like(idle: Row) -> Callable[[Row], bool]:
    """The bounds of a machine that others use too."""
    return lambda row: row.max_ms <= MAX_RATIO * idle.max_ms + SLACK_MS


async def quick(address: str, only: str) -> tuple[list[Row], Callable[[Row], bool]]:
    """Some attacks on a server that runs. One that misses its bound is tried again: others on the
    machine may have been the cause, and a server that stalls does so every time.
    """
    with probing(address) as probe:
        probe.wait_past(time.monotonic())
        target = _target(address)
        idle = await measure(IDLE, target, probe)
        rows, is_kept = [idle], is_like(idle)
        for number, attack in enumerate(ATTACKS):
            if not attack.is_quick or only not in attack.name:
                continue
            for attempt in range(QUICK_TRIES):
                row = await measure(attack, target.as_visitor(1_000 * attempt + 10 * number), probe)
                if is_kept(row):
                    break
            rows.append(row)
    return rows, is_kept


async def whole(only: str) -> tuple[list[Row], Callable[[Row], bool]]:
    """Every attack, on a server of its own."""
    from benchmarks.lib.app_process import App

    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        app = App(log, "--trusted-proxies=127.0.0.1")
        try:
            http = await app.ready()
            async with aclosing(http):
                await http.get("/")  # what is made once is made
            address = str(http.base_url)
            with probing(address) as probe:
                probe.wait_past(time.monotonic())
                target, rows = _target(address), [await measure(IDLE, _target(address), probe)]
                for number, attack in enumerate(ATTACKS):
                    if only not in attack.name:
                        continue
                    before = app.usage.memory_info().rss
                    row = await measure(attack, target.as_visitor(10 * number), probe)
                    after = await _settled(lambda: app.usage.memory_info().rss, before)
                    mib = (round(before / 2**20), round(after / 2**20))
                    rows.append(Row(row.name, row.answered, row.took_s, row.answers_ms, mib))
                    print(rows[-1].cells(is_kept=is_within(rows[-1])), file=sys.stderr, flush=True)
        finally:
            app.end()
    return rows, is_within


async def _settled(memory: Callable[[], int], before: int) -> int:
    """The memory once it is back, or after a minute."""
    until_s = time.monotonic() + GIVEN_BACK_S
    while (now := memory()) > MAX_GROWTH * before and time.monotonic() < until_s:
        await asyncio.sleep(0.5)
    return now


def _target(address: str) -> Target:
    parts = urlsplit(address)
    return Target(parts.hostname or "", parts.port or 80)


def _facts(note: str | None) -> dict[str, str]:
    """Where and how it ran; imported here, since it brings torch."""
    import torch

    from benchmarks.lib.report import about
    from falcon_mamba_app.ops.select import select_ops

    device = torch.device("cpu")
    facts = about("stall", device, select_ops(device, "auto"))
    return {**facts, **({"note": note} if note else {})}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--address", help="a server that runs, for --quick")
    parser.add_argument("--only", default="", metavar="WORDS", help="attacks whose names hold them")
    parser.add_argument("--note", help="about the machine, for the result's page")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    if options.quick != bool(options.address):
        parser.error("--quick and --address go together")
    running = quick(options.address, options.only) if options.quick else whole(options.only)
    rows, is_kept = asyncio.run(running)
    kept = [is_kept(row) or row is rows[0] for row in rows]
    result = {
        "benchmark": "stall",
        "is_kept": all(kept),
        "rows": [{**row.figures(), "kept": ok} for row, ok in zip(rows, kept, strict=True)],
    }
    if options.quick:
        print(json.dumps(result))
        return 0 if all(kept) else 1
    from benchmarks.lib.report import Table, finish

    facts, table = _facts(options.note), Table(*HEADS)
    for row, ok in zip(rows, kept, strict=True):
        table.add(*row.cells(is_kept=ok))
    finish("Stall", facts, table, result, options.save)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
