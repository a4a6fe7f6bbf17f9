"""The forms of a matrix as a product reads it, what the packed ones have in common, and the sum of
a product that came in parts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from falcon_mamba_app.ops.reference import weight_8bit, weight_ggml
from falcon_mamba_app.ops.reference.weight_8bit import Weight8bit
from falcon_mamba_app.ops.reference.weight_ggml import WeightGgml

Packed = Weight8bit | WeightGgml
Matrix = Tensor | Packed


def dequantize(weight: Packed, dtype: torch.dtype) -> Tensor:
    """(outputs, inputs) in `dtype`, rounded once from fp32."""
    if isinstance(weight, WeightGgml):
        return weight_ggml.dequantize(weight, dtype)
    return weight_8bit.dequantize(weight, dtype)


def rows_of(weight: Packed, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows (t,) of the matrix as (t, inputs) in `dtype`, as an embedding table gives them."""
    if isinstance(weight, WeightGgml):
        return weight_ggml.rows_of(weight, rows, dtype)
    return weight_8bit.rows_of(weight, rows, dtype)


def total(addends: Tensor) -> Tensor:
    """(a, t, m) → (t, m), the sum over a; no copy where a is 1."""
    return addends[0] if len(addends) == 1 else addends.sum(0)
