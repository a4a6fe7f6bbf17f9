"""Snapshots of a sequence's state: milliseconds out and back, and what decode notices of them.

    python -m benchmarks.snapshots [--rows 32] [--steps 60] [--save NAME]

On a GPU the real 7B shape with random weights in bf16, elsewhere the bundled model. "Out" is a copy
into host memory, which is reserved at start, until the host may read it; "back" is a copy into a
slot until the device has it. The last lines decode rows without and with a snapshot taken of one of
them in each step. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks.decode import add_sequences, engine_over
from benchmarks.lib.models import bundled_model, random_7b
from benchmarks.lib.report import Table, about, finish
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.ops.select import select_ops

NUM_KEPT = 8  # snapshots alive at a time, as in a store that is full


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def median_ms(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        synchronize(device)
        started_s = time.perf_counter()
        work()
        synchronize(device)
        times.append(1_000 * (time.perf_counter() - started_s))
    return statistics.median(times)


def measure_copies(engine: Engine, repeats: int) -> dict[str, float]:
    """Milliseconds of one copy; the first ones use the host memory that was reserved at start."""
    pool, device = engine.pool, engine.model.device
    slot = pool.take()
    kept: deque[State] = deque(maxlen=NUM_KEPT)

    def out() -> None:
        kept.append(pool.save(slot))
        kept[-1].wait()

    first = median_ms(out, device, NUM_KEPT)
    again = median_ms(out, device, repeats)
    newest = median_ms(lambda: pool.restore(slot, kept[-1]), device, repeats)
    only_host = replace(kept[-1], on_device=None)
    back = median_ms(lambda: pool.restore(slot, only_host), device, repeats)
    pool.release(slot)
    return {"out_first_ms": first, "out_ms": again, "back_ms": back, "newest_back_ms": newest}


def measure_decode(engine: Engine, steps: int) -> dict[str, float]:
    """Milliseconds of a step, median and slowest, without and with a snapshot in each step."""
    kept: deque[State] = deque(maxlen=NUM_KEPT)

    def saving() -> None:
        kept.append(engine.pool.save(1))

    found: dict[str, float] = {}
    meanwhile: dict[str, Callable[[], None]] = {"alone": lambda: None, "with snapshots": saving}
    for name, extra in meanwhile.items():
        times = []
        for _ in range(steps):
            started_s = time.perf_counter()
            extra()
            engine.step()
            times.append(1_000 * (time.perf_counter() - started_s))
        key = f"step_{name.replace(' ', '_')}"
        found |= {f"{key}_ms": statistics.median(times), f"{key}_worst_ms": max(times[2:])}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ops = select_ops(device, "auto")
    model = (random_7b if device.type == "cuda" else bundled_model)(ops, device, torch.bfloat16)
    engine = engine_over(model, max_running=options.rows + 1)
    figures: dict[str, Any] = measure_copies(engine, options.steps)
    add_sequences(engine, options.rows, prompt_tokens=32)
    figures |= measure_decode(engine, options.steps)
    state_bytes = model.config.state_bytes(model.dtype.itemsize)
    table = Table("what", "ms", "pass", "aim")
    for name, key, passes, aim in (
        ("out, the first ones", "out_first_ms", "", ""),
        ("out", "out_ms", "≤ 5", "≤ 1.5"),
        ("back", "back_ms", "≤ 5", "≤ 1.5"),
        ("back, the newest, kept on the device too", "newest_back_ms", "", ""),
        (f"a step of {options.rows} rows", "step_alone_ms", "", ""),
        ("the same, slowest", "step_alone_worst_ms", "", ""),
        ("with a snapshot in each", "step_with_snapshots_ms", "", ""),
        ("the same, slowest", "step_with_snapshots_worst_ms", "", ""),
    ):
        table.add(name, f"{figures[key]:.2f}", passes, aim)
    facts = about("snapshots", device, ops) | {"state": f"{state_bytes / 1e6:.1f} MB"}
    result = {"benchmark": "snapshots", "state_bytes": state_bytes, **figures}
    finish("Snapshots", facts, table, result, options.save)


if __name__ == "__main__":
    main()
