"""A few rows times a weight matrix, at the speed at which the GPU reads the matrix.

Decoding is mostly such products: of the 14.0 GB read for one token of the 7B model, 13.9 are
weights. The library's products are made for many rows. With 1 … 64 rows they read the large
matrices at 2.1 to 2.7 TB/s of an H100's 3.0, and x_proj at 0.6; ours read them at 2.4 to 3.1 and
1.0 to 1.8 (`benchmarks/results/kernels-h100.md`).

The tiles of a product depend on its shape alone. So a row's result depends on the other rows of its
batch through their number only: 1, up to 16, 32, 64 and more rows sum the same products in
different orders, and may differ in the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.triton.device import current_gpu
from falcon_mamba_app.ops.triton.overlap import (
    OVERLAPPED,
    read_ahead,
    start_next,
    wait_for_inputs,
)

MAX_ROWS = 64


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`Ops.matmul_prompt` and `matmul_step`: our kernels for few rows, torch's for more. Both
    operations follow the same rule.
    """
    if not is_ours(x, weight, bias):
        return F.linear(x, weight, bias)
    return _product(x, weight, num_addends=1, out_dtype=x.dtype)[0]


def matmul_addends(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The addends of `matmul`: several programs share a tile of a matrix that has few outputs."""
    if not is_ours(x, weight, bias):
        return F.linear(x, weight, bias).unsqueeze(0)
    num_addends = 1 if len(x) == 1 else _num_addends(*weight.shape)
    return _product(x, weight, num_addends=num_addends, out_dtype=torch.float32)


def is_ours(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether our kernels apply: no bias, few rows, and sizes that give tiles of whole outputs.
    The 7B's sizes do.
    """
    (num_outputs, num_inputs), num_rows = weight.shape, len(x)
    fits = bias is None and num_rows <= MAX_ROWS and num_inputs % 256 == 0 and num_outputs % 8 == 0
    # fp32 goes through the matrix units as tf32, which keeps 10 bits.
    has_units = current_gpu().can_multiply_tiles and x.dtype != torch.float32
    return fits and (num_rows == 1 or has_units)


def _product(x: Tensor, weight: Tensor, *, num_addends: int, out_dtype: torch.dtype) -> Tensor:
    """(num_addends, t, o)"""
    assert x.stride(1) == 1 and weight.is_contiguous(), (x.stride(), weight.stride())
    (num_outputs, num_inputs), num_rows = weight.shape, len(x)
    y = torch.empty((num_addends, num_rows, num_outputs), dtype=out_dtype, device=x.device)
    if num_rows == 1:
        outputs, inputs, num_warps = row_tile(num_outputs, num_inputs)
        _row_times_matrix_kernel[(num_outputs // outputs,)](
            x, weight, y, num_inputs, outputs, inputs, num_warps=num_warps, **OVERLAPPED
        )
        return y
    rows, tile = rows_tile(x, weight, num_addends)
    _rows_times_matrix_kernel[(triton.cdiv(num_outputs, tile.outputs), num_addends)](
        x, weight, y, num_rows, x.stride(0), num_outputs, num_inputs, num_addends,
        rows, tile.outputs, tile.inputs, tile.stages,
        num_warps=tile.warps, **OVERLAPPED,
    )  # fmt: skip
    return y


def rows_tile(x: Tensor, weight: Tensor, num_addends: int) -> tuple[int, Tile]:
    """The number of rows to compute, and the tile of the matrix that one program works on."""
    (num_outputs, num_inputs), num_rows = weight.shape, len(x)
    rows = max(16, triton.next_power_of_2(num_rows))
    tile = fitting(
        _tile(num_outputs, num_inputs, num_rows),
        rows=rows,
        length=num_inputs // num_addends,
        value_bytes=x.element_size(),
        shared_bytes=current_gpu().shared_bytes,
    )
    return rows, tile


def row_tile(num_outputs: int, num_inputs: int) -> tuple[int, int, int]:
    """Outputs and inputs of one program's tile, and its warps; measured inside a decode step on an
    H100: with 16 warps x_proj is faster alone, but 0.5 µs slower in the step.
    """
    power_of_two = num_inputs & -num_inputs  # the largest one that divides it
    if num_inputs < 1024:
        return 8, power_of_two, 1
    # x_proj has 288 outputs: two per program would leave most multiprocessors with one program.
    if num_outputs < 1024:
        return 1, min(power_of_two, 8192), 8
    if num_inputs >= 8192:
        return 2, min(power_of_two, 4096), 8
    return 2, min(power_of_two, 2048), 4


@dataclass(frozen=True, slots=True)
class Tile:
    outputs: int
    inputs: int
    stages: int  # stages − 1 tiles are loading at a time
    warps: int


def _tile(num_outputs: int, num_inputs: int, num_rows: int) -> Tile:
    """The fastest of about ten tiles per shape, with 8, 32 and 64 rows on an H100."""
    if num_inputs < 1024:
        return Tile(outputs=128, inputs=256, stages=2, warps=8)
    if num_outputs >= 16384:
        return Tile(outputs=128, inputs=128, stages=3, warps=8)
    if num_outputs >= 1024:
        return Tile(outputs=64, inputs=128, stages=5, warps=4)
    # x_proj: the inputs of more rows leave less room for weights.
    if num_rows > 32:
        return Tile(outputs=64, inputs=128, stages=4, warps=4)
    return Tile(outputs=64, inputs=256, stages=2, warps=4)


def fitting(tile: Tile, *, rows: int, length: int, value_bytes: int, shared_bytes: int) -> Tile:
    """The tile, with its stages reduced to fit a GPU's shared memory; if fewer than three stages
    would fit, its inputs are reduced. `length`: the inputs that a program works through.
    """
    bytes_of_stage = (tile.outputs + rows) * tile.inputs * value_bytes
    num_stages = shared_bytes // bytes_of_stage - 1  # the tile read ahead has its own place
    is_loop = tile.inputs < length
    if num_stages >= min(tile.stages, 3) or (not is_loop and num_stages >= 0):
        return replace(tile, stages=min(tile.stages, max(num_stages, 1)))
    half = replace(tile, inputs=tile.inputs // 2, stages=2 * tile.stages)
    return fitting(
        half, rows=rows, length=length, value_bytes=value_bytes, shared_bytes=shared_bytes
    )


def _num_addends(num_outputs: int, num_inputs: int) -> int:
    """Enough addends that 7B's tiles give 80 to 128 programs; an H100 runs 132 at a time."""
    shares = num_inputs // 256
    if num_outputs >= 16384:
        return 1
    return min(2 if num_outputs >= 1024 else 16, shares & -shares)


@triton.jit
def _row_times_matrix_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    num_inputs: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    start_next()
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    weight_ptrs, weight = first_of_row(weight_ptr, outputs, num_inputs, INPUTS)
    wait_for_inputs()
    tl.store(y_ptr + outputs, row_product(x_ptr, weight_ptrs, weight, num_inputs, INPUTS))


@triton.jit
def first_of_row(weight_ptr, outputs, num_inputs: tl.constexpr, INPUTS: tl.constexpr):
    """The first weights of the outputs, loading while the previous kernel ends; their pointers."""
    inputs = tl.arange(0, INPUTS)
    weight_ptrs = weight_ptr + outputs[:, None].to(tl.int64) * num_inputs + inputs[None, :]
    # The weights are read once per token: leave the cache to the states.
    return weight_ptrs, tl.load(weight_ptrs, eviction_policy="evict_first").to(tl.float32)


@triton.jit
def row_product(x_ptr, weight_ptrs, weight, num_inputs: tl.constexpr, INPUTS: tl.constexpr):
    """(outputs,) fp32 of one row, from what `first_of_row` gave."""
    inputs = tl.arange(0, INPUTS)
    total = weight * tl.load(x_ptr + inputs).to(tl.float32)[None, :]
    for start in tl.range(INPUTS, num_inputs, INPUTS, loop_unroll_factor=4):
        weight = tl.load(weight_ptrs + start, eviction_policy="evict_first").to(tl.float32)
        total += weight * tl.load(x_ptr + start + inputs).to(tl.float32)[None, :]
    return tl.sum(total, axis=1)


@triton.jit(do_not_specialize=["num_rows"])
def _rows_times_matrix_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    num_rows,
    x_stride,
    num_outputs: tl.constexpr,
    num_inputs: tl.constexpr,
    NUM_ADDENDS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One tile of outputs of one addend, which is the product over its share of the inputs."""
    start_next()
    addend = tl.program_id(1)
    length: tl.constexpr = num_inputs // NUM_ADDENDS
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    rows = tl.arange(0, ROWS)
    weight_ptrs, weight, first = first_of_rows(
        weight_ptr + addend * length, outputs, num_outputs, num_inputs, length, INPUTS
    )
    wait_for_inputs()
    total = rows_product(
        x_ptr + addend * length, x_stride, num_rows, weight_ptrs, weight, first,
        length, ROWS, INPUTS, STAGES,
    )  # fmt: skip
    cells = (addend * num_rows + rows)[None, :].to(tl.int64) * num_outputs + outputs[:, None]
    mask = (rows < num_rows)[None, :] & (outputs < num_outputs)[:, None]
    tl.store(y_ptr + cells, total, mask=mask)


@triton.jit
def first_of_rows(
    weight_ptr,
    outputs,
    num_outputs: tl.constexpr,
    num_inputs: tl.constexpr,
    length: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """The first weights of the outputs' products over `length` inputs, the pointers to these, and
    the first input. These weights and the next ones load while the previous kernel ends.
    """
    # Past the last output the last one is read again: a mask would prevent wide copies.
    rows = weight_ptr + tl.minimum(outputs, num_outputs - 1).to(tl.int64) * num_inputs
    weight_ptrs = rows[:, None] + tl.arange(0, INPUTS)[None, :]
    # Tiles of outputs begin at different inputs; otherwise all would read the same ones at once.
    first = tl.program_id(0) % (length // INPUTS) * INPUTS
    weight = tl.load(weight_ptrs + first, eviction_policy="evict_first")
    if length > INPUTS:  # one more tile; two gain nothing on an H100 with 64 rows
        ahead = rows + tl.minimum(first + INPUTS, length - INPUTS)
        read_ahead(ahead, INPUTS * weight_ptr.dtype.element_ty.primitive_bitwidth // 8)
    return weight_ptrs, weight, first


@triton.jit
def rows_product(
    x_ptr,
    x_stride,
    num_rows,
    weight_ptrs,
    weight,
    first,
    length: tl.constexpr,
    ROWS: tl.constexpr,
    INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """(outputs, ROWS) fp32, from what `first_of_rows` gave."""
    rows = tl.arange(0, ROWS)
    has_row = (rows < num_rows)[None, :]
    x_ptrs = x_ptr + rows[None, :] * x_stride + tl.arange(0, INPUTS)[:, None]
    total = tl.dot(weight, tl.load(x_ptrs + first, mask=has_row, other=0.0))
    for start in tl.range(INPUTS, length, INPUTS, num_stages=STAGES):
        place = first + start
        place = tl.where(place < length, place, place - length)
        weight = tl.load(weight_ptrs + place, eviction_policy="evict_first")
        x = tl.load(x_ptrs + place, mask=has_row, other=0.0)
        total = tl.dot(weight, x, total)
    return total
