"""A few rows in bf16 times a matrix in 4 bits, on NVIDIA's GPUs from Ampere on.

`few_rows_4bit_kernel` says how. On an H200 a step of the 7B in nf4 with 16 rows takes 4.02 ms
instead of 5.67, with 32 rows 5.19 instead of 6.25. With 64 rows it took longer, 8.14 instead of
7.33; with one, 3.25 instead of 2.20, even without the convolution. There, where Gluon cannot be
used, and for double quantisation the kernels of `linear_4bit_kernels` take over.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from falcon_mamba_app.ops.reference.recurrence import ConvWeights
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit
from falcon_mamba_app.ops.triton import gluon_parts
from falcon_mamba_app.ops.triton.device import current_gpu
from falcon_mamba_app.ops.triton.few_rows_4bit_kernel import few_rows_4bit_kernel
from falcon_mamba_app.ops.triton.overlap import CAN_OVERLAP, OVERLAPPED

BLOCK = 64
MIN_ROWS, MAX_ROWS = 2, 32
TAPS = 4
TABLE_BYTES, DEFAULT_SHARED_BYTES = 32_768, 49_152


@dataclass(frozen=True, slots=True)
class Tile:
    outputs: int  # a multiple of 16 · warps
    blocks: int  # a multiple of 4; that many are loading at a time
    warps: int  # 4 or 8


def applies(x: Tensor, weight: Weight4bit) -> bool:
    """Whether the kernel below can multiply these."""
    fits = (
        x.dtype == torch.bfloat16 == weight.compute_dtype
        and weight.nested is None
        and weight.blocksize == BLOCK
        and weight.shape[1] % (4 * BLOCK) == 0
        and MIN_ROWS <= len(x) <= MAX_ROWS
    )
    return fits and gluon_parts.is_available() and current_gpu().capability >= (8, 0)


def num_addends(num_outputs: int, num_inputs: int) -> int:
    """Enough addends that 7B's tiles give 160 to 256 programs; an H200 runs 264 or more."""
    shares = num_inputs // (4 * BLOCK)
    if num_outputs >= 8192:
        return 1
    return min(4 if num_outputs >= 1024 else 32, shares & -shares)


def tile_of(num_inputs: int, num_addends: int) -> Tile:
    """The fastest of about six tiles per shape on an H200 with 32 rows. For fewer rows with 16
    blocks or 8 addends kernels alone are up to 20 % faster; in a step that was not measured.
    """
    is_long = num_inputs // BLOCK // num_addends % 8 == 0
    return Tile(outputs=64, blocks=8 if is_long else 4, warps=4)


def num_stages(tile_bytes: int) -> int:
    """Tiles of x in shared memory; one less is loading at a time. Triton asks for more than 48 KB
    only where what it knows of takes them, and it does not know of the table of code values.
    """
    is_asked_for = 2 * tile_bytes > DEFAULT_SHARED_BYTES
    fits = 2 * tile_bytes + TABLE_BYTES <= DEFAULT_SHARED_BYTES
    return 2 if fits or is_asked_for else DEFAULT_SHARED_BYTES // tile_bytes + 1


def product(x: Tensor, weight: Weight4bit, *, num_addends: int, out_dtype: torch.dtype) -> Tensor:
    """(num_addends, t, o), where `applies`."""
    y = torch.empty((num_addends, len(x), weight.shape[0]), dtype=out_dtype, device=x.device)
    _launch(x, weight, y, None, None, None, None)
    return y


def convolves(x: Tensor, weight: Weight4bit, bias: Tensor | None, conv: ConvWeights) -> bool:
    """Whether `projected_conv_step` below applies."""
    k, d = conv.weight.shape
    # Every tile of outputs belongs to x alone or to z alone.
    return bias is None and k == TAPS and d % 128 == 0 and applies(x, weight)


def projected_conv_step(
    x: Tensor, weight: Weight4bit, conv: ConvWeights, *, conv_states: Tensor, slots: Tensor
) -> tuple[Tensor, Tensor]:
    """`Ops.projected_conv_step`, where `convolves`."""
    assert conv_states.is_contiguous(), conv_states.stride()
    y = torch.empty((1, len(x), weight.shape[0]), dtype=x.dtype, device=x.device)
    _launch(x, weight, y, conv.weight, conv.bias, conv_states, slots)
    x, z = y[0].chunk(2, dim=-1)
    return x, z


def _launch(x: Tensor, weight: Weight4bit, y: Tensor, *of_conv: Tensor | None) -> None:
    assert x.stride(1) == 1, x.stride()
    (num_outputs, num_inputs), (number, num_rows, _) = weight.shape, y.shape
    tile = tile_of(num_inputs, number)
    # The matrix units know 8 too, but a step with 8 rows took 0.2 ms longer than one with 16: its
    # smaller tiles of x leave room for the table, so only one of them loads at a time.
    rows = max(16, triton.next_power_of_2(num_rows))
    stages = num_stages(rows * tile.blocks * BLOCK * x.element_size())
    few_rows_4bit_kernel[(triton.cdiv(num_outputs, tile.outputs), number)](
        x, weight.packed.view(torch.int32), weight.absmax, weight.code, y, *of_conv, num_rows,
        x.stride(0), num_outputs, num_inputs, number, rows, tile.outputs, tile.blocks, stages,
        tile.warps, CAN_OVERLAP, num_warps=tile.warps, **OVERLAPPED,
    )  # fmt: skip
