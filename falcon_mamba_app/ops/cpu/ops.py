"""The operations for the CPU; each is one call of a compiled kernel.

Outputs are new tensors; states are read and written once, in place. A step of a small model runs on
the calling thread alone, since a second thread would start too late for an operation of 10 to
100 µs. Prompts and large matrices are split over torch's number of threads. Torch multiplies a
matrix by many rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from threading import Thread

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_mamba_app.ops import ConvWeights, Ops, ScanWeights
from falcon_mamba_app.ops.cpu import kernels, quantized_kernels
from falcon_mamba_app.ops.cpu.sampling import allow_only, sample
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit, block_absmax
from falcon_mamba_app.ops.reference.weight_8bit import Matrix, Weight8bit
from falcon_mamba_app.ops.reference.weight_8bit import dequantize as portable_dequantize

KINDS = {torch.float32: kernels.FLOAT32, torch.bfloat16: kernels.BFLOAT16}

# A thread takes 50 µs to start. A second one only pays above this number of values (t·d) of a
# prompt, or of weights of a matrix times few rows.
MIN_VALUES_PER_THREAD = 16_384
MIN_WEIGHTS_PER_THREAD = 8_388_608

# Up to this number of rows our matrix product on one thread is at least as fast as oneDNN's on two
# (benchmarks/cpu_choices.py).
MAX_ROWS = 4


class CpuOps(Ops):
    """Numba's kernels, and oneDNN for prompts."""

    name = "numba"

    def matmul_prompt(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        """By oneDNN. It computes a row the same way for any number of rows from two upwards, so a
        prompt gives the same numbers whatever shares its chunk. torch's own call of oneDNN does
        not, in bf16.
        """
        if isinstance(weight, Weight8bit):
            weight = self.dequantize(weight, x.dtype)
        if not _has_onednn(x.dtype):
            return F.linear(x, weight, bias)
        if len(x) == 1:
            return onednn_linear(x.expand(2, -1), weight, bias)[:1]
        return onednn_linear(x, weight, bias)

    def matmul_step(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        """Always by our kernel: a row's result is the same, bit for bit, alone and in any batch.
        For 8 rows oneDNN would be a third faster.
        """
        if len(x) <= MAX_ROWS:
            return few_rows_linear(x, weight, bias)
        return torch.cat([few_rows_linear(rows, weight, bias) for rows in x.split(MAX_ROWS)])

    def dequantize(self, weight: Weight4bit | Weight8bit, dtype: torch.dtype) -> Tensor:
        """By our kernel. bitsandbytes' starts one thread per core for each matrix: with one core
        busy elsewhere, a step takes twenty times as long.
        """
        if isinstance(weight, Weight8bit):
            return _dequantized(weight, dtype)
        num_blocks = weight.packed.numel() * 2 // weight.blocksize
        if num_blocks * weight.blocksize != weight.shape[0] * weight.shape[1]:
            return super().dequantize(weight, dtype)
        y, absmax = torch.empty(weight.shape, dtype=dtype), block_absmax(weight)
        _check(weight.packed, absmax, weight.code)

        def run(low: int, high: int) -> None:
            scratch = torch.empty(16, dtype=dtype)
            quantized_kernels.dequantize_4bit(
                weight.packed.data_ptr(), absmax.data_ptr(), weight.code.data_ptr(),
                weight.blocksize, scratch.data_ptr(), y.data_ptr(), KINDS[dtype], low, high,
            )  # fmt: skip

        _split(run, num_blocks, y.numel() // MIN_WEIGHTS_PER_THREAD)
        return y

    def rms_norm(
        self, x: Tensor, weight: Tensor | None, eps: float, out_dtype: torch.dtype
    ) -> Tensor:
        num_rows, num_columns = x.shape
        y = torch.empty((num_rows, num_columns), dtype=out_dtype)
        weight_kind = KINDS[out_dtype if weight is None else weight.dtype]
        kernels.rms_norm(
            x.data_ptr(), _row_stride(x), _address(weight), eps, num_rows, num_columns,
            y.data_ptr(), KINDS[x.dtype], weight_kind, KINDS[out_dtype],
        )  # fmt: skip
        return y

    def conv_step(
        self, x: Tensor, weights: ConvWeights, *, conv_states: Tensor, slots: Tensor
    ) -> Tensor:
        y, run = _conv(x, weights, conv_states, slots, None)
        run(0, x.shape[1])
        return y

    def conv_prefill(
        self,
        x: Tensor,
        weights: ConvWeights,
        *,
        conv_states: Tensor,
        slots: Tensor,
        query_starts: Tensor,
    ) -> Tensor:
        y, run = _conv(x, weights, conv_states, slots, query_starts)
        _split(run, x.shape[1], x.numel() // MIN_VALUES_PER_THREAD)
        return y

    def scan_step(
        self,
        x: Tensor,
        weights: ScanWeights,
        *,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        z: Tensor,
        ssm_states: Tensor,
        slots: Tensor,
    ) -> Tensor:
        y, run = _scan(x, weights, dt, B, C, z, ssm_states, slots, None)
        run(0, x.shape[1])
        return y

    def scan_prefill(
        self,
        x: Tensor,
        weights: ScanWeights,
        *,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        z: Tensor,
        ssm_states: Tensor,
        slots: Tensor,
        query_starts: Tensor,
    ) -> Tensor:
        y, run = _scan(x, weights, dt, B, C, z, ssm_states, slots, query_starts)
        _split(run, x.shape[1], x.numel() // MIN_VALUES_PER_THREAD)
        return y

    allow_only = staticmethod(allow_only)
    sample = staticmethod(sample)


def few_rows_linear(x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
    """At most MAX_ROWS rows times the matrix."""
    (b, num_inputs), num_outputs = x.shape, weight.shape[0]
    y = torch.empty((b, num_outputs), dtype=x.dtype)
    run: Callable[[int, int], None]
    if isinstance(weight, Weight8bit):
        _check(weight.values, weight.scale)
        run = partial(
            quantized_kernels.linear_8bit,
            x.data_ptr(), _row_stride(x), weight.values.data_ptr(), weight.scale.data_ptr(),
            weight.scale.shape[1], _address(bias), b, num_inputs, num_outputs, y.data_ptr(),
            KINDS[x.dtype],
        )  # fmt: skip
    else:
        _check(weight)
        run = partial(
            kernels.linear,
            x.data_ptr(), _row_stride(x), weight.data_ptr(), _address(bias), b, num_inputs,
            num_outputs, y.data_ptr(), KINDS[x.dtype],
        )  # fmt: skip
    _split(run, num_outputs, num_outputs * num_inputs // MIN_WEIGHTS_PER_THREAD)
    return y


def _dequantized(weight: Weight8bit, dtype: torch.dtype) -> Tensor:
    if dtype not in KINDS:
        return portable_dequantize(weight, dtype)
    (num_outputs, num_inputs), num_groups = weight.shape, weight.scale.shape[1]
    y = torch.empty((num_outputs, num_inputs), dtype=dtype)
    _check(weight.values, weight.scale)
    run = partial(
        quantized_kernels.dequantize_8bit,
        weight.values.data_ptr(), weight.scale.data_ptr(), num_groups, num_inputs, y.data_ptr(),
        KINDS[dtype],
    )  # fmt: skip
    _split(run, num_outputs, y.numel() // MIN_WEIGHTS_PER_THREAD)
    return y


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


def _conv(
    x: Tensor,
    weights: ConvWeights,
    conv_states: Tensor,
    slots: Tensor,
    query_starts: Tensor | None,
) -> tuple[Tensor, Callable[[int, int], None]]:
    """The output (t, d), and what fills its channels low … high when called, while it is there."""
    (t, d), k, weight = x.shape, weights.weight.shape[0], weights.weight
    y = torch.empty((t, d), dtype=x.dtype)
    assert x.dtype == weight.dtype == conv_states.dtype, (x.dtype, weight.dtype, conv_states.dtype)
    _check(weight, conv_states, slots)
    run = partial(
        kernels.conv,
        x.data_ptr(), _row_stride(x), weight.data_ptr(), _address(weights.bias),
        conv_states.data_ptr(), slots.data_ptr(), _address(query_starts), slots.numel(), d, k,
        y.data_ptr(), KINDS[x.dtype],
    )  # fmt: skip
    return y, run


def _scan(
    x: Tensor,
    weights: ScanWeights,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    z: Tensor,
    ssm_states: Tensor,
    slots: Tensor,
    query_starts: Tensor | None,
) -> tuple[Tensor, Callable[[int, int], None]]:
    """The output (t, d), and what fills its channels low … high when called, while it is there."""
    A, D, dt_bias = weights.A, weights.D, weights.dt_bias
    (t, d), n = x.shape, A.shape[0]
    y = torch.empty((t, d), dtype=x.dtype)
    assert x.dtype == dt.dtype == z.dtype == B.dtype == C.dtype, (x.dtype, dt.dtype, B.dtype)
    _check(A, D, dt_bias, ssm_states, slots)
    run = partial(
        kernels.scan,
        x.data_ptr(), _row_stride(x), dt.data_ptr(), _row_stride(dt), A.data_ptr(),
        B.data_ptr(), _row_stride(B), C.data_ptr(), _row_stride(C), D.data_ptr(),
        z.data_ptr(), _row_stride(z), dt_bias.data_ptr(), ssm_states.data_ptr(),
        slots.data_ptr(), _address(query_starts), slots.numel(), d, n, y.data_ptr(), KINDS[x.dtype],
    )  # fmt: skip
    return y, run


def _split(run: Callable[[int, int], None], num_channels: int, max_parts: int) -> None:
    """Call run(low, high) for parts of all channels, on torch's number of threads, and in at most
    max_parts parts.
    """
    if max_parts < 2:
        run(0, num_channels)
        return
    # Whole blocks, so that two threads never write to the same cache line.
    num_blocks = -(-num_channels // kernels.BLOCK)
    num_parts = min(torch.get_num_threads(), max_parts, num_blocks)
    blocks = [part * num_blocks // num_parts for part in range(num_parts + 1)]
    (low, high), *others = pairwise(min(block * kernels.BLOCK, num_channels) for block in blocks)
    threads = [Thread(target=run, args=part) for part in others]
    for thread in threads:
        thread.start()
    run(low, high)
    for thread in threads:
        thread.join()


def _row_stride(x: Tensor) -> int:
    row, column = x.stride()
    assert column == 1, f"the channels of a row must lie together, strides are {x.stride()}"
    return row


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _check(*tensors: Tensor) -> None:
    """Assert that tensors which the kernels read without strides are contiguous."""
    for tensor in tensors:
        assert tensor.is_contiguous(), f"strides are {tensor.stride()}"


NUMBA = CpuOps()
