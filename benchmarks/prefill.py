"""Reading prompts through `Engine.step()`: tokens per second, and the peak memory while reading.

    python -m benchmarks.prefill [--lengths 1024 8192 32768] [--chunk 2048] [--output results.json]

On a GPU the real 7B shape with random weights in bf16, elsewhere the bundled model. Prints a table
and one JSON line. Peak memory must not depend on the length.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.decode import SAMPLING, engine_over
from benchmarks.models import bundled_model, random_7b
from benchmarks.roofline import describe
from falcon_mamba_app.engine.engine import Engine, Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.ops.select import select_ops


def read_prompt(engine: Engine, num_tokens: int) -> float:
    """Seconds from adding a prompt to its first sampled token."""
    generator = torch.Generator().manual_seed(num_tokens)
    ids = torch.randint(20, engine.model.config.vocab_size, (num_tokens,), generator=generator)
    seq = Sequence(seq_id=0, prompt_token_ids=ids.tolist(), sampling=SAMPLING, seed=0)
    engine.add(seq)
    start = time.perf_counter()
    while not any(isinstance(event, Sampled) for event in engine.step()):
        pass
    seconds = time.perf_counter() - start
    engine.abort(0)
    engine.step()
    return seconds


def peak_bytes(device: torch.device) -> int:
    """Since the last call on a GPU; of the whole process elsewhere."""
    if device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1_024, 8_192, 32_768])
    parser.add_argument("--chunk", type=int, nargs="+", default=[2_048])
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ops = select_ops(device, options.kernels)
    make = random_7b if device.type == "cuda" else bundled_model
    model = make(ops, device, torch.bfloat16)
    print(f"{describe(device)}, torch {torch.__version__}, {ops.name} kernels, {date.today()}\n")
    print(f"{'chunk':>7}{'tokens':>9}{'tok/s':>9}{'peak GB':>9}")
    rows: list[dict[str, Any]] = []
    for chunk in options.chunk:
        engine = engine_over(model, max_running=1, max_prefill_tokens=chunk)
        read_prompt(engine, chunk + 1)  # compiles and warms up
        peak_bytes(device)
        for length in options.lengths:
            seconds = read_prompt(engine, length)
            row = {
                "chunk": chunk,
                "tokens": length,
                "tokens_per_s": length / seconds,
                "peak_bytes": peak_bytes(device),
            }
            rows.append(row)
            print(
                f"{chunk:7}{length:9}{row['tokens_per_s']:9.0f}{row['peak_bytes'] / 1e9:9.3f}",
                flush=True,
            )
    result = {
        "benchmark": "prefill",
        "device": describe(device),
        "torch": torch.__version__,
        "kernels": ops.name,
        "date": str(date.today()),
        "rows": rows,
    }
    print(json.dumps(result))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
