"""Why the CPU path is as it is: who multiplies matrices, and how long OpenMP's threads may spin.

    python -m benchmarks.cpu_choices [--save NAME]

Prints two tables. The first times the bundled model's matrix products in fp32 and bf16 by MKL or
torch's choice, by oneDNN, and by our kernels. The second runs our engine in fresh
processes at several GOMP_SPINCOUNT, with the machine to itself and beside a process that keeps one
core busy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import cpu
from benchmarks.lib.report import Table, finish_several
from falcon_mamba_app.ops.cpu import products

SPIN_COUNTS = ("default", "10000", "1000", "100", "0")
NUM_LAYERS, HEAD = 12, (8192, 512)
MATRICES = [(2048, 512), (64, 1024), (1024, 32), (512, 1024)]  # of a layer
NUM_ROWS = (1, 2, 3, 4, 8, 512)
BUSY = "while True: pass"

Product = Callable[[Tensor, Tensor, None], Tensor]


PRODUCTS: dict[str, Product] = {
    "torch": F.linear,
    "oneDNN": products.onednn_linear,
    "ours": products.rows_of_step,  # at every size, to find the break-even
}


def products_table(num_rows: Sequence[int] = NUM_ROWS, num_layers: int = NUM_LAYERS) -> Table:
    """Milliseconds for all products of one pass over the model."""
    heads = [f"{name}, ms" for name in PRODUCTS]
    table = Table("dtype", "best", "rows", *heads, "GB/s", "GFLOP/s", words=2)
    for dtype in (torch.float32, torch.bfloat16):
        weights = [torch.randn(s).to(dtype) for s in [*MATRICES * num_layers, HEAD]]
        for b in num_rows:
            inputs = {m: torch.randn(b, m).to(dtype) for m in {w.shape[1] for w in weights}}
            times = {name: _best_ms(each, weights, inputs) for name, each in PRODUCTS.items()}
            best = min(times, key=lambda name: times[name])
            gbyte = 1e-9 * sum(weight.nbytes for weight in weights)
            gflop = 2e-9 * b * sum(weight.numel() for weight in weights)
            speeds = (f"{amount / times[best] * 1e3:.0f}" for amount in (gbyte, gflop))
            cells = (f"{ms:.2f}" for ms in times.values())
            table.add(str(dtype)[6:], best, str(b), *cells, *speeds)
    return table


def _best_ms(product: Product, weights: list[Tensor], inputs: dict[int, Tensor]) -> float:
    def once() -> None:
        for weight in weights:
            product(inputs[weight.shape[1]], weight, None)

    with torch.inference_mode():
        return 1e3 * min(cpu.timed(once) for _ in range(12))


def spin_table(spin_counts: Sequence[str] = SPIN_COUNTS) -> Table:
    """Median tokens per second of each fresh process."""
    table = Table("machine", "GOMP_SPINCOUNT", *_speeds_names(), words=2)
    for machine in ("free", "one core busy"):
        busy = subprocess.Popen([sys.executable, "-c", BUSY]) if machine != "free" else None
        try:
            for spin_count in spin_counts:
                table.add(machine, spin_count, *_speeds_of(spin_count))
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
    return table


def _speeds_names() -> list[str]:
    whats = (f"prefill {cpu.PROMPT}", "decode 1", "decode 8")
    return [f"{dtype} {what}, tok/s" for dtype in ("float32", "bfloat16") for what in whats]


def _speeds_of(spin_count: str) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    if spin_count != "default":
        environment["GOMP_SPINCOUNT"] = spin_count
    command = [sys.executable, "-m", "benchmarks.cpu_choices", "--own-speeds"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1].split(" | ")


def own_speeds(*, repeats: int = 5, new_tokens: int = 40) -> str:
    """The speeds of this process, as cells of the table."""
    cells = []
    for dtype in ("float32", "bfloat16"):
        model = cpu.load("numba", dtype)
        cpu.prefill_s(model, cpu.PROMPT)
        reads = [cpu.PROMPT / cpu.prefill_s(model, cpu.PROMPT) for _ in range(repeats)]
        cells.append(statistics.median(reads))
        for num_rows in (1, 8):
            runs = [cpu.decode(model, num_rows, new_tokens) for _ in range(3)]
            cells.append(statistics.median(tokens / seconds for tokens, seconds in runs))
    return " | ".join(f"{cell:,.0f}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    parser.add_argument("--own-speeds", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own_speeds:
        print(own_speeds())
        return
    facts = cpu.about("cpu_choices")
    tables = [products_table(), spin_table()]
    result = {"tables": [table.lines for table in tables]}
    finish_several("Choices of the CPU path", facts, tables, result, options.save)


if __name__ == "__main__":
    main()
