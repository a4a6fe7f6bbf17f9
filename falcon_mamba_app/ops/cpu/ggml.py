"""Products with a matrix of small whole numbers: in GGML's blocks, or in 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from falcon_mamba_app.ops.cpu import ggml_kernels, ggml_unpacking
from falcon_mamba_app.ops.cpu.atomics import address_of_kernel
from falcon_mamba_app.ops.cpu.ggml_numbers import BLOCK, GROUP
from falcon_mamba_app.ops.cpu.pool import POOL
from falcon_mamba_app.ops.cpu.tensors import KINDS, row_stride
from falcon_mamba_app.ops.reference.matrix import Matrix
from falcon_mamba_app.ops.reference.weight_8bit import Weight8bit
from falcon_mamba_app.ops.reference.weight_ggml import WeightGgml

# The kernels of a kind, and their `form`.
KERNELS: dict[str, tuple[Any, Any, bool | None]] = {
    "Q8_0": (ggml_kernels.linear_32, ggml_unpacking.unpack_32, None),
    "Q4_0": (ggml_kernels.linear_32, ggml_unpacking.unpack_32, False),
    "Q4_K": (ggml_kernels.linear_minima, ggml_unpacking.unpack_minima, None),
    "Q5_K": (ggml_kernels.linear_minima, ggml_unpacking.unpack_minima, False),
    "Q6_K": (ggml_kernels.linear_q6_k, ggml_unpacking.unpack_q6_k, None),
}
# Kernels are compiled for these numbers of rows; three rows take that for four.
NUMBERS_OF_ROWS = (1, 2, 4)
# A thread takes so many outputs at a time that the others wait for no more than 10 µs, and a prompt
# finds them in its second cache again and again; they are whole cache lines of the result.
PART_BYTES, LINE_OUTPUTS = 131_072, 16
Run = Callable[[int, int], None]


def has_whole_groups(weight: Matrix) -> TypeGuard[Weight8bit]:
    """Whether `linear` takes a matrix in 8 bits: its groups are of a multiple of 32 inputs."""
    if not isinstance(weight, Weight8bit):
        return False
    return weight.shape[1] // weight.scale.shape[1] % GROUP == 0


def linear(x: Tensor, weight: Weight8bit | WeightGgml, bias: Tensor | None) -> Tensor:
    """(b, o) in fp32, on torch's number of threads. A row's result is the same, bit for bit, in any
    number of rows.
    """
    (b, num_inputs), num_outputs, kind = x.shape, weight.shape[0], KINDS[x.dtype]
    at_a_time = next((n for n in NUMBERS_OF_ROWS if n >= b), NUMBERS_OF_ROWS[-1])
    num_sets = -(-b // at_a_time)
    num_rows, num_blocks = num_sets * at_a_time, -(-num_inputs // BLOCK)
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
        data, factors, name = weight.values, weight.scale, "int8"
    else:
        data, factors, name = weight.data, None, weight.kind
    assert data.is_contiguous() and (factors is None or factors.is_contiguous())
    # In the order of their names in `ggml_kernels`.
    shared = (
        data.data_ptr(), data.shape[1], 0 if factors is None else factors.data_ptr(),
        1 if factors is None else factors.shape[1], num_inputs,
        0 if biases is None else biases.data_ptr(), num_outputs,
    )  # fmt: skip
    arguments = np.array(
        [
            (*(_at_row(own, row) for own in (values, scales, sums)), *shared, _at_row(y, row))
            for row in range(0, num_rows, at_a_time)
        ],
        np.int64,
    )
    POOL.run(
        _product(name, at_a_time)[0],
        arguments,
        num_outputs,
        part=max(1, PART_BYTES // data.shape[1] // LINE_OUTPUTS) * LINE_OUTPUTS,
        num_threads=torch.get_num_threads(),
    )
    return y[:b]


def _at_row(rows: Tensor, row: int) -> int:
    return rows.data_ptr() + row * rows.stride(0) * rows.itemsize


@cache
def _product(name: str, num_rows: int) -> tuple[int, Any]:
    """The address of the kernel for a kind of matrix and so many rows, and the kernel."""
    make, form = (ggml_kernels.linear_int8, None) if name == "int8" else KERNELS[name][::2]
    kernel = make(form, (0,) * num_rows)
    return address_of_kernel(kernel), kernel


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
