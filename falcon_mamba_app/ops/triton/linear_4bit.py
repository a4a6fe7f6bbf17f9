"""Products with matrices in bitsandbytes' 4-bit storage, read without conversion.

A GPU multiplies far more than it reads, so decoding must not cost what 4 bits save in reading. One
row sums in fp32; in bf16 it looks up both numbers of a byte at once, and so do a few rows in
`few_rows_4bit`. In all other cases each lane of a warp holds one of the 16 code values. A shuffle
looks up a number: it takes the low bits of its index and ignores the others, so the eight numbers
of a word need one shift each and no mask. A few rows use the matrix units, with each weight rounded
once, as `dequantize` rounds it. Many rows, and shapes that these kernels do not support, multiply
one dequantised matrix, which is freed before the next one is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit
from falcon_mamba_app.ops.reference.weight_4bit import dequantize as portable_dequantize
from falcon_mamba_app.ops.triton import few_rows_4bit
from falcon_mamba_app.ops.triton.device import current_gpu
from falcon_mamba_app.ops.triton.linear_4bit_kernels import (
    dequantize_kernel,
    row_kernel,
    rows_kernel,
)
from falcon_mamba_app.ops.triton.overlap import OVERLAPPED

BLOCK = 64  # numbers that share a magnitude; bitsandbytes' default
MAX_ROWS = 64
DEQUANTIZED_WORDS = 1024  # per program
HALVES = (torch.bfloat16, torch.float16)


def matmul(x: Tensor, weight: Weight4bit, bias: Tensor | None) -> Tensor:
    """`Ops.matmul_4bit_prompt` and `matmul_4bit_step`: the number of rows decides how. Both
    operations follow the same rule.
    """
    if not _is_ours(x, weight):
        return _dense_product(x, weight, bias)
    y = _product(x, weight, num_addends=1, out_dtype=x.dtype)[0]
    return y if bias is None else y.add_(bias)


def matmul_addends(x: Tensor, weight: Weight4bit, bias: Tensor | None) -> Tensor:
    """The addends of `matmul`: several programs share a tile of a matrix that has few outputs."""
    if bias is not None or not _is_ours(x, weight):
        return matmul(x, weight, bias).unsqueeze(0)
    if few_rows_4bit.applies(x, weight):
        num_addends = few_rows_4bit.num_addends(*weight.shape)
    else:
        num_addends = 1 if _takes_one_row(x, weight) else _num_addends(*weight.shape)
    return _product(x, weight, num_addends=num_addends, out_dtype=torch.float32)


def dequantize(weight: Weight4bit, dtype: torch.dtype) -> Tensor:
    """`Ops.dequantize`; by plain torch if the last block is incomplete."""
    num_words, block = weight.packed.numel() // 4, weight.blocksize // 8
    is_whole = weight.shape[0] * weight.shape[1] == num_words * 8 and num_words % block == 0
    if not is_whole or DEQUANTIZED_WORDS % block:
        return portable_dequantize(weight, dtype)
    y = torch.empty(weight.shape, dtype=dtype, device=weight.packed.device)
    dequantize_kernel[(triton.cdiv(num_words, DEQUANTIZED_WORDS),)](
        *storage(weight), y, num_words, DEQUANTIZED_WORDS, block, num_warps=4
    )
    return y


def _dense_product(x: Tensor, weight: Weight4bit, bias: Tensor | None) -> Tensor:
    """Through one dequantised matrix; the allocator hands its memory to the next one."""
    dtype = weight.compute_dtype
    dense = dequantize(weight, dtype)
    return F.linear(x.to(dtype), dense, None if bias is None else bias.to(dtype)).to(x.dtype)


def _is_ours(x: Tensor, weight: Weight4bit) -> bool:
    """Whether our kernels apply: few rows, sizes that make whole tiles, supported precisions."""
    fits = weight.blocksize == BLOCK and weight.shape[1] % BLOCK == 0 and len(x) <= MAX_ROWS
    has_units = x.dtype in HALVES and current_gpu().can_multiply_tiles
    return fits and (_takes_one_row(x, weight) or has_units)


def _takes_one_row(x: Tensor, weight: Weight4bit) -> bool:
    """Whether it is one row, whose inputs divide evenly among the lanes of some warps."""
    num_outputs, num_inputs = weight.shape
    is_even = num_inputs & (num_inputs - 1) == 0 and 256 <= num_inputs <= 16_384
    return len(x) == 1 and is_even and num_outputs % _row_tile(*weight.shape).outputs == 0


def _product(x: Tensor, weight: Weight4bit, *, num_addends: int, out_dtype: torch.dtype) -> Tensor:
    """(num_addends, t, o)"""
    assert x.stride(1) == 1, x.stride()
    if few_rows_4bit.applies(x, weight):
        return few_rows_4bit.product(x, weight, num_addends=num_addends, out_dtype=out_dtype)
    (num_outputs, num_inputs), num_rows = weight.shape, len(x)
    y = torch.empty((num_addends, num_rows, num_outputs), dtype=out_dtype, device=x.device)
    if _takes_one_row(x, weight):
        _launch_row(x, weight, y)
        return y
    tile = _tile(num_outputs, num_inputs, num_addends, num_rows)
    rows_kernel[(triton.cdiv(num_outputs, tile.outputs), num_addends)](
        x, *storage(weight), y, num_rows, x.stride(0), num_outputs, num_inputs, num_addends,
        tile.rows, tile.outputs, tile.blocks, tile.stages,
        weight.compute_dtype == torch.float32, num_warps=tile.warps, **OVERLAPPED,
    )  # fmt: skip
    return y


def _launch_row(x: Tensor, weight: Weight4bit, y: Tensor) -> None:
    num_outputs, num_inputs = weight.shape
    tile = _row_tile(num_outputs, num_inputs)
    rounds = 1 if num_outputs % (tile.outputs * tile.rounds) else tile.rounds
    row_kernel[(num_outputs // (tile.outputs * rounds),)](
        x, *storage(weight), y, num_inputs, tile.outputs, rounds, tile.group,
        weight.compute_dtype != torch.bfloat16, num_warps=tile.warps, **OVERLAPPED,
    )  # fmt: skip


def storage(weight: Weight4bit) -> tuple[Tensor | None, ...]:
    """The tensors that a kernel reads, in the order of its parameters."""
    words, nested = weight.packed.view(torch.int32), weight.nested
    if nested is None:
        return words, weight.absmax, weight.code, None, None, None
    return words, weight.absmax, weight.code, nested.code, nested.scale, nested.offset


@dataclass(frozen=True, slots=True)
class RowTile:
    outputs: int  # at a time, while the next ones load
    rounds: int
    warps: int
    group: int  # words that are scaled together; 8 are a block


def _row_tile(num_outputs: int, num_inputs: int) -> RowTile:
    """The fastest of about ten tiles per shape on an H100 and an H200. A lane has 32 numbers of a
    row; 8 of a short one; 16 of in_proj's, which makes a whole step 8 % faster on the H200.
    """
    if num_inputs < 1024:
        return RowTile(outputs=64, rounds=1, warps=4, group=8)
    warps = num_inputs // 1024
    if num_outputs < 1024:
        return RowTile(outputs=2, rounds=1, warps=2 * warps, group=2)
    if num_outputs >= 16_384:
        return RowTile(outputs=8, rounds=8, warps=2 * warps, group=8)
    return RowTile(outputs=4, rounds=4, warps=warps, group=8)


@dataclass(frozen=True, slots=True)
class Tile:
    rows: int  # a power of 2
    outputs: int
    blocks: int  # of BLOCK inputs
    stages: int
    warps: int


def _tile(num_outputs: int, num_inputs: int, num_addends: int, num_rows: int) -> Tile:
    """The fastest of about ten tiles per shape, with 8, 32 and 64 rows on an H100. For the large
    matrices 16 rows take longer than 32, because the compiler distributes their loads worse.
    """
    blocks = num_inputs // BLOCK // num_addends
    rows = max(16, triton.next_power_of_2(num_rows))
    if num_outputs >= 1024 <= num_inputs:
        rows = max(32, rows)
    if num_outputs >= 16_384 and blocks % 4 == 0:
        return Tile(rows, outputs=64, blocks=4, stages=3 if rows == 32 else 2, warps=4)
    return Tile(rows, outputs=64, blocks=2 if blocks % 2 == 0 else 1, stages=4, warps=4)


def _num_addends(num_outputs: int, num_inputs: int) -> int:
    """Enough addends that 7B's tiles give 128 to 512 programs; an H100 runs 132 at a time."""
    blocks = num_inputs // BLOCK
    if num_outputs >= 8192 or num_inputs < 1024:
        return 1
    return min(8 if num_outputs >= 1024 else 32, blocks & -blocks)
