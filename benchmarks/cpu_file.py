"""The 7B's file on this machine's CPU: loading, memory, speed, and a turn after a history.

    GOMP_SPINCOUNT=100 python -m benchmarks.cpu_file [--layers 64] [--history 64] [--file PATH]
                                                     [--save NAME]

A file of the 7B's shape in Q4_K is written, 4.2 GB with all layers, and read once, so that it is in
the page cache. A process of its own then loads it as the app does, and reads and writes through the
engine. A turn's time does not depend on the number of layers: with one layer a history of 28,000
tokens is read in a minute. Exit status 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cpu import about
from benchmarks.lib import report
from benchmarks.lib.models import FALCON_MAMBA_7B
from benchmarks.lib.random_gguf import write_random_gguf

MAX_BESIDE_BYTES, MAX_LOAD_S, MAX_TURN_RATIO = 600_000_000, 5.0, 1.05
TURN_TOKENS, TURNS, STEPS = 8, 5, 12
READ_BYTES = 2**26


def inside(path: Path, history: int) -> dict[str, Any]:
    """In the process that loads the file: the figures."""
    from benchmarks import context
    from falcon_mamba_app.checkpoint.placement import Machine
    from falcon_mamba_app.service.local.build import placed
    from falcon_mamba_app.service.local.startup import Startup, read_tokenizer
    from falcon_mamba_app.settings import EngineSettings, ModelSettings
    from falcon_mamba_app.text.reply_log import ReplyLog

    limits = EngineSettings().on(has_gpu=False)
    began = time.perf_counter()
    placement = placed(ModelSettings(model=str(path), device="cpu"), limits, Machine.look("cpu"))
    _, defaults = read_tokenizer(placement.checkpoint, ReplyLog())
    startup = Startup(placement, defaults, limits)
    found_s = time.perf_counter() - began
    model = startup.load_on_host()
    loaded_s = time.perf_counter() - began
    engine = startup.build_engine(model, limits=limits)
    # Compiles.
    context.turn_s(engine, [], session_id="first")
    engine.forget("first")
    began = time.perf_counter()
    read = context.start(engine, [500] * history, session_id="long", new_tokens=STEPS + 2)
    context.first_token_s(engine)
    read_s = time.perf_counter() - began
    step_s = context.step_s(engine, steps=STEPS)
    context.finish_all(engine)
    ids = [*read.prompt_token_ids, *read.output_token_ids]
    fresh, after = [], []
    for turn in range(TURNS):
        fresh.append(_turn_s(engine, [], f"fresh {turn}")[0])
        engine.forget(f"fresh {turn}")  # its state is 40 MB of another visitor's
        seconds, ids = _turn_s(engine, ids, "long")
        after.append(seconds)
    return {
        "found_s": found_s,
        "load_s": loaded_s - found_s,
        "read_tokens_per_s": history / read_s,
        "tokens_per_s": 1 / step_s,
        "fresh_turn_s": statistics.median(fresh),
        "turn_ratio": statistics.median(after) / statistics.median(fresh),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _turn_s(engine: Any, history: list[int], session_id: str) -> tuple[float, list[int]]:
    """Seconds to the first token of a short turn, and the history after it."""
    from benchmarks import context

    prompt = [*history, *([600] * TURN_TOKENS)]
    seq = context.start(engine, prompt, session_id=session_id, new_tokens=2)
    seconds = context.first_token_s(engine)
    context.finish_all(engine)
    return seconds, [*seq.prompt_token_ids, *seq.output_token_ids]


def measure(path: Path, history: int) -> dict[str, Any]:
    """The figures of a fresh process; the file is in the page cache."""
    with path.open("rb") as file:
        while file.read(READ_BYTES):
            pass
    command = [sys.executable, "-m", "benchmarks.cpu_file", "--inside", str(path)]
    command += ["--history", str(history)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    found["file_bytes"] = path.stat().st_size
    return found


def shortfalls(found: dict[str, Any]) -> list[str]:
    beside = found["peak_bytes"] - found["file_bytes"]
    return [
        f"{what} is {value:.2f}, more than {most:.2f}"
        for what, value, most in (
            ("memory beside the file, GB,", beside / 1e9, MAX_BESIDE_BYTES / 1e9),
            ("loading, s,", found["load_s"], MAX_LOAD_S),
            ("a turn after the history ÷ without", found["turn_ratio"], MAX_TURN_RATIO),
        )
        if value > most
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=FALCON_MAMBA_7B.num_layers)
    parser.add_argument("--history", type=int, default=64, help="tokens")
    parser.add_argument("--file", type=Path, help="this file, in place of a random one")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        print(json.dumps(inside(options.inside, options.history)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = options.file
        if path is None:
            path = Path(folder) / "falcon-mamba-7b-random-Q4_K_M.gguf"
            write_random_gguf(path, replace(FALCON_MAMBA_7B, num_layers=options.layers))
        found = measure(path, options.history)
    table = report.Table(
        "file, GB", "loading, s", "peak memory, GB", "reading, tok/s", "writing, tok/s",
        "a turn of 8 tokens, s", f"the same after {options.history:,} tokens ÷ without",
    )  # fmt: skip
    table.add(
        f"{found['file_bytes'] / 1e9:.2f}", f"{found['load_s']:.1f}",
        f"{found['peak_bytes'] / 1e9:.2f}", f"{found['read_tokens_per_s']:.1f}",
        f"{found['tokens_per_s']:.2f}", f"{found['fresh_turn_s']:.2f}",
        f"{found['turn_ratio']:.2f}",
    )  # fmt: skip
    facts = {**about("cpu_file"), "layers": str(options.layers)}
    report.finish("The 7B's file on a CPU", facts, table, found, options.save)
    missed = shortfalls(found)
    print(*(f"ABOVE THE BOUND: {words}" for words in missed), sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
