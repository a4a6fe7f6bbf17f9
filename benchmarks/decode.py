"""Decode speed through `Engine.step()`, sampling included, against the memory's speed.

    python -m benchmarks.decode [--batch 1 8 32 64] [--steps 100] [--save NAME]

On a GPU the real 7B shape with random weights in bf16, elsewhere the bundled model. Prints a table
and one JSON line. A row's roofline is the time to read the weights once and every row's state once,
and to write the states, at the bandwidth measured in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from benchmarks.models import bundled_model, random_7b
from benchmarks.report import Table, about, finish
from benchmarks.roofline import measure
from falcon_mamba_app.engine.engine import Engine, Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.protocol import SamplingParams

SAMPLING = SamplingParams(
    temperature=0.7, top_p=0.9, seed=1, ignore_eos=True, max_new_tokens=1_000_000
)


def engine_over(model: FalconMamba, *, max_running: int, max_prefill_tokens: int = 2048) -> Engine:
    return Engine(
        model,
        eos_token_ids=frozenset({11}),
        max_running=max_running,
        max_prefill_tokens=max_prefill_tokens,
        max_snapshot_bytes=2**30,
    )


def add_sequences(engine: Engine, num_rows: int, *, prompt_tokens: int) -> None:
    """Fill the engine with sequences and step until all of them decode."""
    generator = torch.Generator().manual_seed(0)
    for seq_id in range(num_rows):
        size = (prompt_tokens,)
        ids = torch.randint(20, engine.model.config.vocab_size, size, generator=generator)
        engine.add(
            Sequence(seq_id=seq_id, prompt_token_ids=ids.tolist(), sampling=SAMPLING, seed=seq_id)
        )
    decoding: set[int] = set()
    while len(decoding) < num_rows:
        decoding |= {event.seq_id for event in engine.step() if isinstance(event, Sampled)}


def step_s(engine: Engine, num_rows: int, *, steps: int) -> float:
    """Median seconds of one step with all rows decoding."""
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        num_tokens = sum(isinstance(event, Sampled) for event in engine.step())
        times.append(time.perf_counter() - start)
        assert num_tokens == num_rows, f"{num_tokens} tokens of {num_rows} rows"
    return statistics.median(times[len(times) // 5 :])


def measure_batch(
    model: FalconMamba, num_rows: int, *, steps: int, read_bytes_per_s: float
) -> dict[str, Any]:
    engine = engine_over(model, max_running=num_rows)
    add_sequences(engine, num_rows, prompt_tokens=32)
    seconds = step_s(engine, num_rows, steps=steps)
    dtype_bytes = model.dtype.itemsize
    moved = model.config.bytes_moved_per_step(num_rows, dtype_bytes)
    return {
        "rows": num_rows,
        "step_ms": 1_000 * seconds,
        "tokens_per_s": num_rows / seconds,
        "bytes_per_s": moved / seconds,
        "share_of_roofline": moved / seconds / read_bytes_per_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    roofline = measure(device)
    ops = select_ops(device, options.kernels)
    make = random_7b if device.type == "cuda" else bundled_model
    model = make(ops, device, torch.bfloat16)
    read = roofline.read_bytes_per_s
    facts = about("decode", device, ops) | {"reads": f"{read / 1e9:.0f} GB/s"}
    table = Table("rows", "step ms", "tok/s", "GB/s", "of roofline")
    rows = []
    for num_rows in options.batch:
        row = measure_batch(model, num_rows, steps=options.steps, read_bytes_per_s=read)
        rows.append(row)
        table.add(
            str(num_rows),
            f"{row['step_ms']:.3f}",
            f"{row['tokens_per_s']:.1f}",
            f"{row['bytes_per_s'] / 1e9:.0f}",
            f"{row['share_of_roofline']:.1%}",
        )
    result: dict[str, Any] = {"benchmark": "decode", "read_bytes_per_s": read, "rows": rows}
    if device.type == "cuda":
        result["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    finish("Decode", facts, table, result, options.save)


if __name__ == "__main__":
    main()
