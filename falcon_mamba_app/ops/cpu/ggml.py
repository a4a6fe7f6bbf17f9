"""Products with a matrix of small whole numbers: in GGML's blocks, or in 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor

from falcon_mamba_app.ops.cpu import ggml_kernels
from falcon_mamba_app.ops.cpu.ggml_kernels import BLOCK, GROUP
from falcon_mamba_app.ops.cpu.tensors import KINDS, row_stride
from falcon_mamba_app.ops.reference.matrix import Matrix
from falcon_mamba_app.ops.reference.weight_8bit import Weight8bit
from falcon_mamba_app.ops.reference.weight_ggml import WeightGgml

# The kernels of a kind, and their `form`.
KERNELS: dict[str, tuple[Any, Any, bool | None]] = {
    "Q8_0": (ggml_kernels.linear_32, ggml_kernels.unpack_32, None),
    "Q4_0": (ggml_kernels.linear_32, ggml_kernels.unpack_32, False),
    "Q4_K": (ggml_kernels.linear_minima, ggml_kernels.unpack_minima, None),
    "Q5_K": (ggml_kernels.linear_minima, ggml_kernels.unpack_minima, False),
    "Q6_K": (ggml_kernels.linear_q6_k, ggml_kernels.unpack_q6_k, None),
}
# Kernels are compiled for these numbers of rows; three rows take that for four.
NUMBERS_OF_ROWS = (1, 2, 4)
Run = Callable[[int, int], None]


def has_whole_groups(weight: Matrix) -> TypeGuard[Weight8bit]:
    """Whether `few_rows` takes a matrix in 8 bits: its groups are of a multiple of 32 inputs."""
    if not isinstance(weight, Weight8bit):
        return False
    return weight.shape[1] // weight.scale.shape[1] % GROUP == 0


def few_rows(x: Tensor, weight: Weight8bit | WeightGgml, bias: Tensor | None) -> tuple[Tensor, Run]:
    """The output (b, o) in fp32 for at most 4 rows, and what fills its columns low … high."""
    (b, num_inputs), num_outputs, kind = x.shape, weight.shape[0], KINDS[x.dtype]
    num_rows = next(number for number in NUMBERS_OF_ROWS if number >= b)
    num_blocks = -(-num_inputs // BLOCK)
    values = torch.empty((num_rows, num_blocks * BLOCK), dtype=torch.int16)
    scales = torch.empty((num_rows, num_blocks))
    sums = torch.empty((num_rows, num_blocks * BLOCK // GROUP))
    y = torch.empty((num_rows, num_outputs))
    biases = None if bias is None else bias.float()
    ggml_kernels.round_rows(
        x.data_ptr(), row_stride(x), b, num_inputs, kind, values.data_ptr(), scales.data_ptr(),
        sums.data_ptr(),
    )  # fmt: skip
    if isinstance(weight, Weight8bit):
        data, factors = weight.values, weight.scale
        linear, form = ggml_kernels.linear_int8, None
    else:
        data, factors = weight.data, None
        linear, _, form = KERNELS[weight.kind]
    assert data.is_contiguous() and (factors is None or factors.is_contiguous())
    run = partial(
        linear,
        values.data_ptr(), scales.data_ptr(), sums.data_ptr(), data.data_ptr(),
        data.shape[1], 0 if factors is None else factors.data_ptr(),
        1 if factors is None else factors.shape[1], num_inputs,
        0 if biases is None else biases.data_ptr(), num_outputs, y.data_ptr(), form,
        (0,) * num_rows,
    )  # fmt: skip
    # The kernel knows only the addresses of the buffers.
    return y[:b], partial(_holding, run, values, scales, sums, biases)


def _holding(run: Run, *args: Any) -> None:
    *_, low, high = args
    run(low, high)


def unpack_into(y: Tensor, weight: WeightGgml) -> Run:
    """What fills rows low … high of y (o, i) with the matrix's."""
    assert weight.data.is_contiguous() and y.is_contiguous()
    _, unpack, form = KERNELS[weight.kind]
    run: Run = partial(
        unpack,
        weight.data.data_ptr(), weight.data.shape[1], weight.shape[1], y.data_ptr(), y.itemsize,
        KINDS[y.dtype], form,
    )  # fmt: skip
    return run
