"""How many powers of two a GPU computes in a second: the limit of the scan over a prompt."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from benchmarks.lib.timing import median_s

PROGRAMS, VALUES, ROUNDS = 132 * 16, 1024, 2048


@triton.jit  # type: ignore[untyped-decorator]
def _exponentials_kernel(x_ptr, ROUNDS: tl.constexpr, VALUES: tl.constexpr):  # type: ignore[no-untyped-def]
    places = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    x = tl.load(x_ptr + places)
    for _ in range(ROUNDS):
        x = tl.exp2(-x)  # stays between 0 and 1, and each needs the one before
    tl.store(x_ptr + places, x)


def exponentials_per_s(device: torch.device) -> float:
    x = torch.rand(PROGRAMS * VALUES, device=device)

    def run() -> None:
        _exponentials_kernel[(PROGRAMS,)](x, ROUNDS, VALUES, num_warps=4)

    return PROGRAMS * VALUES * ROUNDS / median_s(run, device)
