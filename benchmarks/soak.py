"""Whether the app holds up: many visitors for minutes, and nothing lost, leaked or left behind.

    python -m benchmarks.soak [--visitors 64] [--minutes 10] [--seed 1] [--save NAME]

Starts the app with the bundled model on a free port of this machine. Half of the visitors use the
page over its own protocol, half the API; they send, stop, reload, go away and come back at random
(the seed decides). Then all leave, everything must have been given back, and the app must end
within seconds with pages open. Prints a table and one JSON line; the exit status is 1 where a bound
was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import torch

from benchmarks.lib.app_process import App
from benchmarks.lib.gauges import gauges
from benchmarks.lib.page_client import Tab, page_map
from benchmarks.lib.report import Table, about, finish
from benchmarks.lib.soak_visitors import ApiVisitor, PageVisitor, Tally, Visitor, visit
from falcon_mamba_app.ops.select import select_ops

KEEP_SESSION_S = 3
# Small, so that snapshots are evicted and requests wait in line.
OPTIONS = (
    "--max-running=16",
    "--max-waiting=40",
    "--snapshot-bytes=64MiB",
    f"--keep-session-s={KEEP_SESSION_S}",
)
SAMPLE_INTERVAL_S = 1.0
WARM_UP = 0.4  # of the time; until then caches and the snapshots' budget fill
MAX_GROWTH_MIB_PER_MIN = 2.0
MAX_GROWTH_MIB = 128.0  # where the time is too short for a slope
MIN_SLOPE_MINUTES = 5.0  # after warm-up: it goes up and down by 10 MiB within minutes
MAX_NEW_DESCRIPTORS = 8
MAX_NEW_THREADS = 4
MAX_EXIT_S = 10.0
# The soak's clients share the app's processors, and one loop asks for all of them.
MAX_HEALTH_MS = 1_000.0
MAX_HEALTH_P99_MS = 500.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The app at one moment."""

    at_s: float
    rss_mib: float
    descriptors: int
    threads: int
    answer_ms: float  # of /health
    gauges: dict[str, float]


async def take_sample(app: App, http: httpx.AsyncClient, started_s: float) -> Sample:
    """How the app is now."""
    asked_s = time.perf_counter()
    await http.get("/health")
    answer_ms = 1_000 * (time.perf_counter() - asked_s)
    text = (await http.get("/metrics")).text
    return Sample(
        time.monotonic() - started_s,
        app.usage.memory_info().rss / 2**20,
        app.usage.num_fds(),
        app.usage.num_threads(),
        answer_ms,
        gauges(text),
    )


class Bounds:
    """The figures, each beside its bound."""

    def __init__(self, *, bounds_times: bool) -> None:
        self._bounds_times = bounds_times
        self.table = Table("measure", "figure", "bound", "kept")
        self.figures: dict[str, Any] = {}
        self.is_kept = True

    def add(self, name: str, value: float, shown: str, bound: str = "", *, ok: bool = True) -> None:
        self.figures[name.replace(" ", "_")] = value
        self.is_kept = self.is_kept and ok
        self.table.add(name, shown, bound, ("yes" if ok else "NO") if bound else "")

    def at_most(self, name: str, value: float, bound: float, unit: str = "") -> None:
        self.add(name, value, f"{value:g}{unit}", f"≤ {bound:g}{unit}", ok=value <= bound)

    def within(self, name: str, value: float, bound: float, unit: str) -> None:
        """A time. Where the machine does other work it is told without its bound."""
        if self._bounds_times:
            self.at_most(name, value, bound, unit)
        else:
            self.add(name, value, f"{value:g}{unit}")


async def soak(http: httpx.AsyncClient, app: App, options: argparse.Namespace) -> Soaked:
    """Let the visitors visit, and leave; samples meanwhile, and one long after."""
    tally, events, started_s = Tally(), await page_map(http), time.monotonic()
    until_s = started_s + 60 * options.minutes
    before = await take_sample(app, http, started_s)
    chances = [random.Random(options.seed * 1_000 + i) for i in range(options.visitors)]
    visitors: list[Visitor] = [
        PageVisitor(http, events, tally, chance, keep_session_s=KEEP_SESSION_S)
        if i % 2
        else ApiVisitor(http, f"visitor-{i}", tally, chance)
        for i, chance in enumerate(chances)
    ]
    visits = [
        asyncio.create_task(visit(visitor, until_s, tally, chance))
        for visitor, chance in zip(visitors, chances, strict=True)
    ]
    samples = []
    while time.monotonic() < until_s:
        samples.append(await take_sample(app, http, started_s))
        await asyncio.sleep(SAMPLE_INTERVAL_S)
    await asyncio.gather(*visits)
    for visitor in visitors:
        await visitor.leave()
    return Soaked(tally, before, samples, await _settled(http, app, started_s))


@dataclass(frozen=True, slots=True)
class Soaked:
    tally: Tally
    before: Sample
    samples: list[Sample]
    after: Sample


async def _settled(http: httpx.AsyncClient, app: App, started_s: float) -> Sample:
    """The app once all is given back, or when that takes too long."""
    until_s = time.monotonic() + KEEP_SESSION_S + 30
    while True:
        sample = await take_sample(app, http, started_s)
        left = sum(sample.gauges[name] for name in LEFT)
        if not left or time.monotonic() > until_s:
            await asyncio.sleep(2)
            return await take_sample(app, http, started_s)
        await asyncio.sleep(0.5)


LEFT = ("sequences_running", "sequences_waiting", "snapshots", "snapshot_bytes")


def judge(soaked: Soaked, options: argparse.Namespace) -> Bounds:
    """The table, all but the exit."""
    bounds, tally = Bounds(bounds_times=not options.unbounded), soaked.tally
    minutes: float = options.minutes
    for what, count in sorted(tally.counts.items()):
        bounds.add(what, count, f"{count:,}")
    bounds.at_most("errors", tally.num_errors, 0)
    late = [s for s in soaked.samples if s.at_s >= 60 * minutes * WARM_UP] or soaked.samples
    early = soaked.samples[: max(1, len(soaked.samples) - len(late))]
    _judge_memory(bounds, late, minutes)
    fds = max(s.descriptors for s in late) - max(s.descriptors for s in early)
    bounds.add("descriptors at most", max(s.descriptors for s in late), f"{fds:+d} since warm-up")
    new_threads = max(s.threads for s in late) - max(s.threads for s in early)
    bounds.at_most("threads since warm-up", new_threads, MAX_NEW_THREADS)
    for name in LEFT:
        bounds.at_most(name.replace("_", " ") + " left", soaked.after.gauges[name], 0)
    left = soaked.after.descriptors - soaked.before.descriptors
    bounds.at_most("descriptors left", left, MAX_NEW_DESCRIPTORS)
    answers = sorted(s.answer_ms for s in late)  # what is made once was made before
    bounds.add("health p50 ms", statistics.median(answers), f"{statistics.median(answers):.1f} ms")
    late_ms = answers[min(len(answers) - 1, int(0.99 * len(answers)))]
    bounds.within("health p99 ms", round(late_ms, 1), MAX_HEALTH_P99_MS, " ms")
    bounds.within("health max ms", round(answers[-1], 1), MAX_HEALTH_MS, " ms")
    tokens = soaked.after.gauges["completion_tokens_total"]
    bounds.add("tokens", tokens, f"{tokens:,.0f}, {tokens / minutes / 60:.0f} a second")
    return bounds


def _judge_memory(bounds: Bounds, late: list[Sample], minutes: float) -> None:
    every = max(1, len(late) // 12)
    bounds.figures["memory_MiB_after_warm_up"] = [round(s.rss_mib) for s in late[::every]]
    first, last = late[0].rss_mib, late[-1].rss_mib
    bounds.add("memory MiB", last, f"{first:.0f} → {last:.0f} MiB after warm-up")
    if minutes * (1 - WARM_UP) < MIN_SLOPE_MINUTES:
        return bounds.at_most("memory growth MiB", round(last - first, 1), MAX_GROWTH_MIB)
    slope, _ = statistics.linear_regression([s.at_s / 60 for s in late], [s.rss_mib for s in late])
    bounds.at_most("memory growth MiB per min", round(slope, 2), MAX_GROWTH_MIB_PER_MIN)


async def end(http: httpx.AsyncClient, app: App, bounds: Bounds) -> None:
    """Tell the app to end, with pages open in mid-reply."""
    events = await page_map(http)
    tabs = [Tab(http, events) for _ in range(4)]
    for tab in tabs:
        await tab.open()
    replies = [asyncio.create_task(_read(tab)) for tab in tabs]
    await asyncio.sleep(1)
    asked_s = time.monotonic()
    app.process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(app.process.wait, 6 * MAX_EXIT_S)
    bounds.within("exit s", round(time.monotonic() - asked_s, 1), MAX_EXIT_S, "")
    await asyncio.gather(*replies, return_exceptions=True)
    status = app.process.returncode
    ok = status in (0, 130, -signal.SIGTERM)
    bounds.add("exit status", -1 if status is None else status, str(status), "clean", ok=ok)
    trouble = len(re.findall(r"^(?:ERROR|CRITICAL|Traceback)", app.output, re.MULTILINE))
    bounds.at_most("errors logged", trouble, 0)


async def _read(tab: Tab) -> None:
    async for _ in tab.send("Tell me a long story", max_new_tokens=4_000):
        pass


async def run(options: argparse.Namespace) -> tuple[Bounds, Tally]:
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        app = App(log, *OPTIONS)
        try:
            async with aclosing(await app.ready()) as http:
                soaked = await soak(http, app, options)
                bounds = judge(soaked, options)
                await end(http, app, bounds)
                if not bounds.is_kept:
                    print("\n".join(app.output.splitlines()[-60:]), file=sys.stderr)
                return bounds, soaked.tally
        finally:
            app.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--unbounded", action="store_true", help="in time, on a machine that does other work"
    )
    parser.add_argument("--note", help="about the machine, for the result's page")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    bounds, tally = asyncio.run(run(options))
    for error in tally.errors:
        print(f"error: {error}", file=sys.stderr)
    device = torch.device("cpu")
    facts = about("soak", device, select_ops(device, "auto"))
    facts["visitors"] = f"{options.visitors}, half on the page, half on the API"
    facts["minutes"] = f"{options.minutes:g}"
    if options.note:
        facts["note"] = options.note
    result = {"benchmark": "soak", "is_kept": bounds.is_kept, **bounds.figures}
    finish("Soak", facts, bounds.table, result, options.save)
    return 0 if bounds.is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
