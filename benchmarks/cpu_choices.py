"""Why the CPU path is as it is: who multiplies matrices, and how long OpenMP's threads may spin.

    python -m benchmarks.cpu_choices [--save NAME]

Prints two tables. The first times the bundled model's matrix products in fp32 and bf16 by MKL or
torch's choice, by oneDNN, and by our kernel on one thread. The second runs our engine in fresh
processes at several GOMP_SPINCOUNT, with the machine to itself and beside a process that keeps one
core busy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import cpu
from falcon_mamba_app.ops.cpu import ops as cpu_ops

SPIN_COUNTS = ("default", "10000", "1000", "100", "0")
NUM_LAYERS, HEAD = 12, (8192, 512)
MATRICES = [(2048, 512), (64, 1024), (1024, 32), (512, 1024)]  # of a layer
NUM_ROWS = (1, 2, 3, 4, 8, 512)
BUSY = "while True: pass"

Product = Callable[[Tensor, Tensor, None], Tensor]


def products_table() -> str:
    """Milliseconds for all products of one pass over the model."""
    lines = [
        "| dtype | rows | torch, ms | oneDNN, ms | ours, ms | best |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for dtype in (torch.float32, torch.bfloat16):
        weights = [torch.randn(s).to(dtype) for s in [*MATRICES * NUM_LAYERS, HEAD]]
        for num_rows in NUM_ROWS:
            inputs = {m: torch.randn(num_rows, m).to(dtype) for m in {w.shape[1] for w in weights}}
            times = {
                name: _best_ms(product, weights, inputs)
                for name, product in (
                    ("torch", F.linear),
                    ("oneDNN", cpu_ops.onednn_linear),
                    ("ours", cpu_ops.few_rows_linear),  # at every size: where does it end to pay?
                )
            }
            gflop = 2e-9 * num_rows * sum(weight.numel() for weight in weights)
            gbyte = 1e-9 * sum(weight.nbytes for weight in weights)
            name = min(times, key=lambda name: times[name])
            seconds = times[name] / 1e3
            speed = f"{name}: {gbyte / seconds:.0f} GB/s, {gflop / seconds:.0f} GFLOP/s"
            cells = " | ".join(f"{ms:.2f}" for ms in times.values())
            lines.append(f"| {str(dtype)[6:]} | {num_rows} | {cells} | {speed} |")
    return "\n".join(lines)


def _best_ms(product: Product, weights: list[Tensor], inputs: dict[int, Tensor]) -> float:
    def once() -> None:
        for weight in weights:
            product(inputs[weight.shape[1]], weight, None)

    with torch.inference_mode():
        return 1e3 * min(cpu.timed(once) for _ in range(12))


def spin_table() -> str:
    """Median tokens per second of each fresh process."""
    lines = ["| machine | GOMP_SPINCOUNT | " + " | ".join(_speeds_names()) + " |"]
    lines.append("|---|---|" + "---:|" * len(_speeds_names()))
    for machine in ("free", "one core busy"):
        busy = subprocess.Popen([sys.executable, "-c", BUSY]) if machine != "free" else None
        try:
            for spin_count in SPIN_COUNTS:
                lines.append(f"| {machine} | {spin_count} | {_speeds_of(spin_count)} |")
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
    return "\n".join(lines)


def _speeds_names() -> list[str]:
    whats = (f"prefill {cpu.PROMPT}", "decode 1", "decode 8")
    return [f"{dtype} {what}, tok/s" for dtype in ("float32", "bfloat16") for what in whats]


def _speeds_of(spin_count: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    if spin_count != "default":
        environment["GOMP_SPINCOUNT"] = spin_count
    command = [sys.executable, "-m", "benchmarks.cpu_choices", "--own-speeds"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1]


def own_speeds() -> str:
    cells = []
    for dtype in ("float32", "bfloat16"):
        model = cpu.load("numba", dtype)
        cpu.prefill_s(model, cpu.PROMPT)
        cells.append(
            statistics.median(cpu.PROMPT / cpu.prefill_s(model, cpu.PROMPT) for _ in "12345")
        )
        for num_rows in (1, 8):
            runs = [cpu.decode(model, num_rows, 40) for _ in range(3)]
            cells.append(statistics.median(tokens / seconds for tokens, seconds in runs))
    return " | ".join(f"{cell:,.0f}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.md")
    parser.add_argument("--own-speeds", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own_speeds:
        print(own_speeds())
        return
    facts = "\n".join(f"- {name}: {value}" for name, value in cpu.about(cpu.QUICK).items())
    text = f"# Choices of the CPU path\n\n{facts}\n\n{products_table()}\n\n{spin_table()}\n"
    print(text)
    if options.save:
        (Path(cpu.RESULTS) / f"{options.save}.md").write_text(text)


if __name__ == "__main__":
    main()
