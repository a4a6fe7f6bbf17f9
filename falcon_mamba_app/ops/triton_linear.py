"""One row times a weight matrix, at the speed the card reads the matrix.

Decoding one sequence is little else: of 14.0 GB read for a token of the 7B model, 13.9 are weights.
The library's products are made for many rows; with one they read at 2.3 to 2.6 TB/s of an H100's
3.08 on the large matrices and at 0.6 on x_proj, ours at 2.7 to 3.1 and at 1.1
(`benchmarks/results/kernels-h100.md`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` of x (t, i) and weight (o, i); one row takes our kernel, more rows torch's.

    Sizes that are no multiple of 256 inputs and 8 outputs are torch's too, and products with a
    bias: the kernel has no masks, and 7B's decode step needs none.
    """
    num_outputs, num_inputs = weight.shape
    if len(x) != 1 or bias is not None or num_inputs % 256 or num_outputs % 8:
        return F.linear(x, weight, bias)
    assert x.stride(1) == 1 and weight.is_contiguous(), (x.stride(), weight.stride())
    y = torch.empty((1, num_outputs), dtype=x.dtype, device=x.device)
    rows, columns, num_warps = _tile(num_outputs, num_inputs)
    _row_times_matrix_kernel[(num_outputs // rows,)](
        x, weight, y, num_inputs, rows, columns, num_warps=num_warps
    )
    return y


def _tile(num_outputs: int, num_inputs: int) -> tuple[int, int, int]:
    """Outputs and inputs of one program's tile, and its warps; measured on an H100."""
    columns = min(num_inputs & -num_inputs, 2048)  # the largest power of two that divides
    if num_inputs < 1024:
        return 8, columns, 1
    # x_proj has 288 outputs: two to a program would leave most multiprocessors with one program.
    return 2 if num_outputs >= 1024 else 1, columns, 4


@triton.jit
def _row_times_matrix_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    num_inputs: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    weight_ptrs = weight_ptr + rows[:, None].to(tl.int64) * num_inputs + columns[None, :]
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in tl.range(0, num_inputs, COLUMNS, loop_unroll_factor=4):
        # Read once and never again before the next token: leave the cache to the states.
        weight = tl.load(weight_ptrs + start, eviction_policy="evict_first").to(tl.float32)
        total += weight * tl.load(x_ptr + start + columns).to(tl.float32)[None, :]
    tl.store(y_ptr + rows, tl.sum(total, axis=1))
