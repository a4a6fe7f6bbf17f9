"""A few rows times a weight matrix, at the speed at which the GPU reads the matrix.

Decoding is mostly such products: of the 14.0 GB read for one token of the 7B model, 13.9 are
weights. The library's products are made for many rows. With 1 … 64 rows they read the large
matrices at 2.1 to 2.7 TB/s of an H100's 3.0, and x_proj at 0.6; ours read them at 2.4 to 3.1 and
1.0 to 1.8 (`benchmarks/results/kernels-h100.md`). A matrix in 8 bits is half the bytes, and read as
it lies: its numbers are exact in bf16, so a tile goes to the matrix units without loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from falcon_mamba_app.ops.reference import weight_ggml
from falcon_mamba_app.ops.reference.matrix import Matrix
from falcon_mamba_app.ops.reference.weight_8bit import Weight8bit
from falcon_mamba_app.ops.reference.weight_ggml import WeightGgml
from falcon_mamba_app.ops.triton import few_rows_8bit, linear_8bit
from falcon_mamba_app.ops.triton.device import current_gpu
from falcon_mamba_app.ops.triton.linear_kernels import (
    row_times_matrix_kernel,
    rows_times_matrix_kernel,
)
from falcon_mamba_app.ops.triton.overlap import OVERLAPPED
from falcon_mamba_app.ops.triton.tiles import num_addends, row_tile, rows_tile

MAX_ROWS = 64


def matmul(x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
    """`Ops.matmul_prompt` and `matmul_step`: our kernels for few rows, torch's for more. Both
    operations follow the same rule.
    """
    if is_ours(x, weight, bias):
        return _product(x, weight, num_addends=1, out_dtype=x.dtype)[0]
    if isinstance(weight, Weight8bit):
        return linear_8bit.dense_product(x, weight, bias)
    dense = weight if isinstance(weight, Tensor) else weight_ggml.dequantize(weight, x.dtype)
    return F.linear(x, dense, bias)


def matmul_addends(x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
    """The addends of `matmul`: several programs share a tile of a matrix that has few outputs."""
    if not is_ours(x, weight, bias):
        return matmul(x, weight, bias).unsqueeze(0)
    if isinstance(weight, Weight8bit) and few_rows_8bit.applies(x, weight):
        number = few_rows_8bit.num_addends(*weight.shape)
    else:
        number = 1 if len(x) == 1 else num_addends(stored(weight)[0])
    return _product(x, weight, num_addends=number, out_dtype=torch.float32)


def is_ours(x: Tensor, weight: Matrix, bias: Tensor | None) -> bool:
    """Whether our kernels apply: no bias, few rows, and sizes that give tiles of whole outputs.
    The 7B's sizes do.
    """
    (num_outputs, num_inputs), num_rows = weight.shape, len(x)
    fits = bias is None and num_rows <= MAX_ROWS and num_inputs % 256 == 0 and num_outputs % 8 == 0
    # fp32 goes through the matrix units as tf32, which keeps 10 bits.
    has_units = current_gpu().can_multiply_tiles and x.dtype != torch.float32
    if isinstance(weight, Weight8bit):
        fits = fits and (weight.has_row_scales or group(weight) in GROUPS)
    return fits and not isinstance(weight, WeightGgml) and (num_rows == 1 or has_units)


# Inputs that share a scale, where a row has several: powers of two that divide every tile.
GROUPS = (16, 32, 64)


def stored(weight: Matrix) -> tuple[Tensor, Tensor | None]:
    """The tensors that a kernel reads: the weights, and their scales if they have some."""
    assert not isinstance(weight, WeightGgml), f"no kernel here reads {weight.kind}"
    return (weight, None) if isinstance(weight, Tensor) else (weight.values, weight.scale)


def group(weight: Matrix) -> int:
    """The inputs that share a scale."""
    num_inputs = weight.shape[1]
    return num_inputs // weight.scale.shape[1] if isinstance(weight, Weight8bit) else num_inputs


def _product(x: Tensor, weight: Matrix, *, num_addends: int, out_dtype: torch.dtype) -> Tensor:
    """(num_addends, t, o)"""
    if isinstance(weight, Weight8bit) and few_rows_8bit.applies(x, weight):
        return few_rows_8bit.product(x, weight, num_addends=num_addends, out_dtype=out_dtype)
    values, scale = stored(weight)
    assert x.stride(1) == 1 and values.is_contiguous(), (x.stride(), values.stride())
    (num_outputs, num_inputs), num_rows = values.shape, len(x)
    y = torch.empty((num_addends, num_rows, num_outputs), dtype=out_dtype, device=x.device)
    if num_rows == 1:
        row = row_tile(values)
        row_times_matrix_kernel[(num_outputs // row.outputs,)](
            x, values, scale, y, num_inputs, group(weight), row.outputs, row.inputs,
            num_warps=row.warps, **OVERLAPPED,
        )  # fmt: skip
        return y
    rows, tile = rows_tile(x, values, num_addends)
    rows_times_matrix_kernel[(triton.cdiv(num_outputs, tile.outputs), num_addends)](
        x, values, scale, y, num_rows, x.stride(0), num_outputs, num_inputs, group(weight),
        num_addends, rows, tile.outputs, tile.inputs, tile.stages,
        num_warps=tile.warps, **OVERLAPPED,
    )  # fmt: skip
    return y
