"""Matrix products: a step's rows by our kernels, prompts by oneDNN.

A packed matrix is multiplied by rows where it lies, and unpacked tile by tile for a prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_mamba_app.ops.cpu import dense, ggml, kernels, quantized_kernels
from falcon_mamba_app.ops.cpu.tensors import KINDS, address_of, check, row_stride
from falcon_mamba_app.ops.cpu.threads import split
from falcon_mamba_app.ops.reference import matrix, weight_4bit
from falcon_mamba_app.ops.reference.matrix import Matrix, Packed
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit, block_absmax
from falcon_mamba_app.ops.reference.weight_8bit import Weight8bit
from falcon_mamba_app.ops.reference.weight_ggml import WeightGgml

# A thread takes 50 µs to start. A second one only pays above this number of weights of a matrix
# times few rows.
MIN_WEIGHTS_PER_THREAD = 8_388_608
MIN_UNPACKED_PER_THREAD = 1_048_576
# A tile of an unpacked matrix: it should stay in a processor's last cache until it is multiplied.
VALUES_OF_A_TILE = 4_194_304

# Up to this number of rows a product of ours takes little longer than one of a single row
# (benchmarks/cpu_choices.py).
MAX_ROWS = 4


def many_rows(x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
    """`Ops.matmul_prompt`, by oneDNN. It computes a row the same way for any number of rows from
    two upwards, so a prompt gives the same numbers whatever shares its chunk. torch's own call of
    oneDNN does not, in bf16.
    """
    if not isinstance(weight, Tensor):
        return _by_tiles(x, weight, bias)
    if not _has_onednn(x.dtype):
        return F.linear(x, weight, bias)
    if len(x) == 1:
        return onednn_linear(x.expand(2, -1), weight, bias)[:1]
    return onednn_linear(x, weight, bias)


def _by_tiles(x: Tensor, weight: Packed, bias: Tensor | None) -> Tensor:
    """`many_rows` of a packed matrix."""
    return _tile_by_tile(
        x, weight.shape, lambda tile, part: _unpack_into(tile, weight.part(part)), bias
    )


def _tile_by_tile(
    x: Tensor,
    shape: tuple[int, ...],
    unpack: Callable[[Tensor, slice], None],
    bias: Tensor | None,
) -> Tensor:
    """`many_rows`, some outputs at a time: no more of the matrix is ever unpacked. `unpack` fills
    a tile (outputs, inputs) with those of the matrix.
    """
    num_outputs, num_inputs = shape
    height = min(num_outputs, max(kernels.BLOCK, VALUES_OF_A_TILE // num_inputs))
    tile = torch.empty((height, num_inputs), dtype=x.dtype)
    if height == num_outputs:
        unpack(tile, slice(0, height))
        return many_rows(x, tile, bias)
    y = torch.empty((len(x), num_outputs), dtype=x.dtype)
    for first in range(0, num_outputs, height):
        part = slice(first, min(first + height, num_outputs))
        rows = tile[: part.stop - first]
        unpack(rows, part)
        y[:, part] = many_rows(x, rows, None if bias is None else bias[part])
    return y


def many_rows_4bit(x: Tensor, weight: Weight4bit, bias: Tensor | None) -> Tensor:
    """`Ops.matmul_4bit_prompt` of a matrix whose rows are whole blocks."""
    dtype, per_row = weight.compute_dtype, weight.shape[1] // weight.blocksize
    absmax = block_absmax(weight)
    bias = None if bias is None else bias.to(dtype)

    def unpack(tile: Tensor, part: slice) -> None:
        _unpack_4bit_into(tile, weight, absmax, part.start * per_row)

    return _tile_by_tile(x.to(dtype), weight.shape, unpack, bias).to(x.dtype)


def has_tiles_4bit(weight: Weight4bit) -> bool:
    """Whether `many_rows_4bit` takes it."""
    return weight.compute_dtype in KINDS and weight.shape[1] % weight.blocksize == 0


def rows_of_step(x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
    """`Ops.matmul_step`, always by our kernels: a row's result is the same, bit for bit, alone and
    in any batch.
    """
    if isinstance(weight, Tensor):
        return dense.linear(x, weight, bias)
    if isinstance(weight, WeightGgml) or ggml.has_whole_groups(weight):
        return ggml.linear(x, weight, bias).to(x.dtype)
    if len(x) <= MAX_ROWS:
        return few_rows_linear(x, weight, bias)
    return torch.cat([few_rows_linear(rows, weight, bias) for rows in x.split(MAX_ROWS)])


def few_rows_linear(x: Tensor, weight: Weight8bit, bias: Tensor | None) -> Tensor:
    """At most MAX_ROWS rows times a matrix in 8 bits with groups of any size."""
    (b, num_inputs), num_outputs = x.shape, weight.shape[0]
    y = torch.empty((b, num_outputs), dtype=x.dtype)
    check(weight.values, weight.scale)
    run = partial(
        quantized_kernels.linear_8bit,
        x.data_ptr(), row_stride(x), weight.values.data_ptr(), weight.scale.data_ptr(),
        weight.scale.shape[1], address_of(bias), b, num_inputs, num_outputs, y.data_ptr(),
        KINDS[x.dtype],
    )  # fmt: skip
    split(run, num_outputs, num_outputs * num_inputs // MIN_WEIGHTS_PER_THREAD)
    return y


def dequantize(weight: Weight4bit | Packed, dtype: torch.dtype) -> Tensor:
    """`Ops.dequantize`, by our kernels."""
    if isinstance(weight, Weight4bit):
        return _dequantize_4bit(weight, dtype)
    if dtype not in KINDS:
        return matrix.dequantize(weight, dtype)
    y = torch.empty(weight.shape, dtype=dtype)
    _unpack_into(y, weight)
    return y


def rows_of(weight: Packed, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """`Ops.rows_of`."""
    return dequantize(weight.part(rows), dtype)


def _unpack_into(y: Tensor, weight: Packed) -> None:
    if isinstance(weight, WeightGgml):
        run = ggml.unpack_into(y, weight)
    else:
        check(weight.values, weight.scale, y)
        run = partial(
            quantized_kernels.dequantize_8bit,
            weight.values.data_ptr(), weight.scale.data_ptr(), weight.scale.shape[1],
            weight.shape[1], y.data_ptr(), KINDS[y.dtype],
        )  # fmt: skip
    split(run, len(y), y.numel() // MIN_UNPACKED_PER_THREAD)


def _dequantize_4bit(weight: Weight4bit, dtype: torch.dtype) -> Tensor:
    """bitsandbytes' own starts one thread per core for each matrix: with one core busy elsewhere, a
    step takes twenty times as long.
    """
    num_blocks = weight.packed.numel() * 2 // weight.blocksize
    if num_blocks * weight.blocksize != weight.shape[0] * weight.shape[1]:
        return weight_4bit.dequantize(weight, dtype)
    y = torch.empty(weight.shape, dtype=dtype)
    _unpack_4bit_into(y, weight, block_absmax(weight), 0)
    return y


def _unpack_4bit_into(y: Tensor, weight: Weight4bit, absmax: Tensor, first: int) -> None:
    """The matrix's numbers from its block `first` on, as many as y holds."""
    check(weight.packed, absmax, weight.code, y)

    def run(low: int, high: int) -> None:
        scratch = torch.empty(16, dtype=y.dtype)
        quantized_kernels.dequantize_4bit(
            weight.packed.data_ptr() + first * weight.blocksize // 2, absmax[first:].data_ptr(),
            weight.code.data_ptr(), weight.blocksize, scratch.data_ptr(), y.data_ptr(),
            KINDS[y.dtype], low, high,
        )  # fmt: skip

    split(run, y.numel() // weight.blocksize, y.numel() // MIN_UNPACKED_PER_THREAD)


def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether `onednn_linear` can be called: in bf16 it needs a processor with AVX-512."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.backends.mkldnn.is_available())


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A matrix product by oneDNN. torch uses oneDNN for bf16 only, and MKL for fp32, which fills
    half of an AMD processor's vectors: the bundled model's products for 512 tokens take 110 ms by
    MKL and 48 ms by oneDNN.
    """
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y
