"""Products with a matrix of small whole numbers: in GGML's blocks, or in 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeGuard

import torch
from torch import Tensor

from falcon_mamba_app.ops.cpu import ggml_kernels, ggml_unpacking
from falcon_mamba_app.ops.cpu.atomics import address_of_kernel
from falcon_mamba_app.ops.cpu.ggml_numbers import GROUP
from falcon_mamba_app.ops.cpu.pool import POOL, Sets
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
    (b, num_inputs), num_outputs = x.shape, weight.shape[0]
    at_a_time = next((n for n in NUMBERS_OF_ROWS if n >= b), NUMBERS_OF_ROWS[-1])
    num_sets = -(-b // at_a_time)
    num_rows = num_sets * at_a_time
    num_bytes = ggml_kernels.scratch_bytes(num_rows, num_sets, num_inputs)
    scratch = torch.empty(num_bytes, dtype=torch.uint8)
    y = torch.empty((num_rows, num_outputs))
    biases = None if bias is None else bias.float()
    if isinstance(weight, Weight8bit):
        data, name = weight.values, "int8"
        factors, num_groups = weight.scale.data_ptr(), weight.scale.shape[1]
        assert weight.scale.is_contiguous()
    else:
        data, name, factors, num_groups = weight.data, weight.kind, 0, 1
    assert data.is_contiguous()
    row_bytes, arguments = data.shape[1], scratch.data_ptr()
    # One call: between products that have just filled the caches with a matrix, each step of
    # Python's costs several times what it does elsewhere.
    ggml_kernels.prepare(
        arguments, at_a_time, num_sets, x.data_ptr(), row_stride(x), b, KINDS[x.dtype],
        data.data_ptr(), row_bytes, factors, num_groups, num_inputs,
        0 if biases is None else biases.data_ptr(), num_outputs, y.data_ptr(),
    )  # fmt: skip
    POOL.run(
        _product(name, at_a_time)[0],
        Sets(arguments, ggml_kernels.SET_BYTES, num_sets),
        num_outputs,
        part=max(1, PART_BYTES // row_bytes // LINE_OUTPUTS) * LINE_OUTPUTS,
        num_threads=torch.get_num_threads(),
    )
    return y[:b]


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
