"""Products with a matrix of small whole numbers: in GGML's blocks, in 8 bits, or in 4 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor

from falcon_mamba_app.ops.cpu import code_kernels, ggml_kernels, ggml_unpacking
from falcon_mamba_app.ops.cpu.atomics import address_of_kernel
from falcon_mamba_app.ops.cpu.ggml_numbers import GROUP
from falcon_mamba_app.ops.cpu.pool import POOL, Sets
from falcon_mamba_app.ops.cpu.tensors import KINDS, row_stride
from falcon_mamba_app.ops.reference.matrix import Matrix
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit
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
# Those without a way to unpack here.
OTHERS: dict[str, tuple[Any, bool | None]] = {
    "int8": (ggml_kernels.linear_int8, None),
    "4 bits": (code_kernels.linear_4bit, None),
    "4 bits, nested": (code_kernels.linear_4bit, False),
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


def has_whole_blocks(weight: Weight4bit) -> bool:
    """Whether `linear` takes a matrix in 4 bits: its rows are whole blocks."""
    num_inputs, width = weight.shape[1], weight.blocksize
    return num_inputs % width == 0 and width % code_kernels.SUMMED == 0


class _Parts(NamedTuple):
    """A matrix as `ggml_kernels.prepare` takes it. kind: the name of its kernel, and its form."""

    kind: str
    data: Tensor
    row_bytes: int
    factors: int = 0
    num_groups: int = 1
    extra: Any = None  # numbers at whose address there are further addresses


def _parts(weight: Weight8bit | WeightGgml | Weight4bit) -> _Parts:
    num_inputs = weight.shape[1]
    if isinstance(weight, WeightGgml):
        return _Parts(weight.kind, weight.data, weight.data.shape[1])
    if isinstance(weight, Weight8bit):
        assert weight.scale.is_contiguous()
        factors, num_groups = weight.scale.data_ptr(), weight.scale.shape[1]
        return _Parts("int8", weight.values, num_inputs, factors, num_groups)
    nested = weight.nested
    tensors = (weight.code, *((nested.code, nested.scale, nested.offset) if nested else ()))
    assert all(t.is_contiguous() and t.dtype == torch.float32 for t in tensors)
    return _Parts(
        "4 bits, nested" if nested else "4 bits",
        weight.packed,
        num_inputs // 2,
        weight.absmax.data_ptr(),
        num_inputs // weight.blocksize,
        np.array([t.data_ptr() for t in tensors], np.int64),
    )


def linear(x: Tensor, weight: Weight8bit | WeightGgml | Weight4bit, bias: Tensor | None) -> Tensor:
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
    kind, data, row_bytes, factors, num_groups, extra = _parts(weight)
    assert data.is_contiguous()
    arguments = scratch.data_ptr()
    # One call: between products that have just filled the caches with a matrix, each step of
    # Python's costs several times what it does elsewhere.
    ggml_kernels.prepare(
        arguments, at_a_time, num_sets, x.data_ptr(), row_stride(x), b, KINDS[x.dtype],
        data.data_ptr(), row_bytes, factors, num_groups, 0 if extra is None else extra.ctypes.data,
        num_inputs, 0 if biases is None else biases.data_ptr(), num_outputs, y.data_ptr(),
    )  # fmt: skip
    POOL.run(
        _product(kind, at_a_time)[0],
        Sets(arguments, ggml_kernels.SET_BYTES, num_sets),
        num_outputs,
        part=max(1, PART_BYTES // row_bytes // LINE_OUTPUTS) * LINE_OUTPUTS,
        num_threads=torch.get_num_threads(),
    )
    return y[:b]


@cache
def _product(kind: str, num_rows: int) -> tuple[int, Any]:
    """The address of the kernel for a kind of matrix and so many rows, and the kernel."""
    make, form = OTHERS[kind] if kind in OTHERS else KERNELS[kind][::2]
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
