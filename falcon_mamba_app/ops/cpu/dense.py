"""Products of a step's rows with a matrix in full precision."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from falcon_mamba_app.ops.cpu import dense_kernels
from falcon_mamba_app.ops.cpu.atomics import address_of_kernel
from falcon_mamba_app.ops.cpu.pool import POOL, Sets
from falcon_mamba_app.ops.cpu.tensors import KINDS, address_of, check, row_stride

# A thread takes so many outputs at a time that the others wait for no more than 10 µs; they are
# whole cache lines of the result.
PART_BYTES, LINE_OUTPUTS = 131_072, 16


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (b, i) · weight (o, i)ᵀ + bias in x's dtype, on torch's number of threads. A row's result
    is the same, bit for bit, in any number of rows.
    """
    (b, num_inputs), num_outputs = x.shape, weight.shape[0]
    assert x.dtype == weight.dtype, (x.dtype, weight.dtype)
    check(weight)
    y = torch.empty((b, num_outputs), dtype=x.dtype)
    scratch = torch.empty(dense_kernels.ARGUMENT_BYTES + 4 * b * num_inputs, dtype=torch.uint8)
    arguments = scratch.data_ptr()
    dense_kernels.prepare(
        arguments, arguments + dense_kernels.ARGUMENT_BYTES, x.data_ptr(), row_stride(x),
        weight.data_ptr(), address_of(bias), b, num_inputs, num_outputs, y.data_ptr(),
        KINDS[x.dtype],
    )  # fmt: skip
    POOL.run(
        _product(x.dtype)[0],
        Sets(arguments, dense_kernels.ARGUMENT_BYTES, 1),
        num_outputs,
        part=part_of(weight),
        num_threads=torch.get_num_threads(),
    )
    return y


def part_of(weight: Tensor) -> int:
    """The outputs that a thread takes at a time."""
    row_bytes = weight.shape[1] * weight.itemsize
    return max(1, PART_BYTES // row_bytes // LINE_OUTPUTS) * LINE_OUTPUTS


@cache
def _product(dtype: torch.dtype) -> tuple[int, Any]:
    """The address of the kernel for matrices of this dtype, and the kernel."""
    make: Any = dense_kernels.linear
    kernel = make(KINDS[dtype])
    return address_of_kernel(kernel), kernel
