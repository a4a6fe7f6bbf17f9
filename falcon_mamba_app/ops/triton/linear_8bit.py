"""Matrices in 8 bits for many rows, and rows of them as embeddings.

Many rows multiply a dequantised matrix by the library's product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.reference.weight_8bit import Weight8bit

BLOCK, WARPS = 4096, 4  # numbers that a program converts at a time


def dense_product(x: Tensor, weight: Weight8bit, bias: Tensor | None) -> Tensor:
    """Through one dequantised matrix; the allocator hands its memory to the next one."""
    return F.linear(x, dequantize(weight, x.dtype), bias)


def dequantize(weight: Weight8bit, dtype: torch.dtype) -> Tensor:
    """`Ops.dequantize`."""
    y = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    _rows_kernel[(len(y),)](*_arguments(weight, None, y), num_warps=WARPS)
    return y


def rows_of(weight: Weight8bit, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """`Ops.rows_of`."""
    y = torch.empty((len(rows), weight.shape[1]), dtype=dtype, device=weight.device)
    if len(y):
        _rows_kernel[(len(y),)](*_arguments(weight, rows, y), num_warps=WARPS)
    return y


def _arguments(weight: Weight8bit, rows: Tensor | None, y: Tensor) -> tuple[object, ...]:
    values, num_inputs = weight.values, weight.shape[1]
    assert values.is_contiguous() and weight.scale.is_contiguous(), values.stride()
    block = min(BLOCK, triton.next_power_of_2(num_inputs))
    return values, weight.scale, rows, y, num_inputs, num_inputs // weight.scale.shape[1], block


@triton.jit
def _rows_kernel(
    values_ptr,
    scale_ptr,
    rows_ptr,
    y_ptr,
    num_inputs: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row of a matrix in y's dtype: the program's own, or the one that `rows` names."""
    place = tl.program_id(0).to(tl.int64)
    row = place if rows_ptr is None else tl.load(rows_ptr + place)
    scale_ptr += row * (num_inputs // GROUP)
    for start in tl.range(0, num_inputs, BLOCK):
        inputs = start + tl.arange(0, BLOCK)
        mask = inputs < num_inputs
        values = tl.load(values_ptr + row * num_inputs + inputs, mask=mask, other=0)
        scale = tl.load(scale_ptr + inputs // GROUP, mask=mask, other=0.0)
        y = values.to(tl.float32) * scale
        tl.store(y_ptr + place * num_inputs + inputs, y, mask=mask)
