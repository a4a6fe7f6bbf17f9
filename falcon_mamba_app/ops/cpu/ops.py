"""The operations for the CPU; each is one call of a compiled kernel.

Outputs are new tensors; states are read and written once, in place. A step's products, and what
`step` computes beside them, are shared among threads that stay (`pool`); a prompt's channels among
threads of their own. Torch multiplies a matrix by many rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from falcon_mamba_app.ops import ConvWeights, Ops, ScanWeights
from falcon_mamba_app.ops.cpu import ggml, kernels, products, step
from falcon_mamba_app.ops.cpu.sampling import allow_only, sample
from falcon_mamba_app.ops.cpu.tensors import KINDS, address_of, check, row_stride
from falcon_mamba_app.ops.cpu.threads import split
from falcon_mamba_app.ops.reference.matrix import Matrix
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit

# A thread takes 50 µs to start. A second one only pays above this number of values (t·d) of a
# prompt.
MIN_VALUES_PER_THREAD = 16_384


class CpuOps(Ops):
    """Numba's kernels, and oneDNN for prompts."""

    name = "numba"
    num_verifiable_tokens = products.MAX_ROWS

    matmul_prompt = staticmethod(products.many_rows)
    matmul_step = staticmethod(products.rows_of_step)
    dequantize = staticmethod(products.dequantize)
    rows_of = staticmethod(products.rows_of)

    def matmul_4bit_prompt(self, x: Tensor, weight: Weight4bit, bias: Tensor | None) -> Tensor:
        if products.has_tiles_4bit(weight):
            return products.many_rows_4bit(x, weight, bias)
        return super().matmul_4bit_prompt(x, weight, bias)

    def matmul_4bit_step(self, x: Tensor, weight: Weight4bit, bias: Tensor | None) -> Tensor:
        """More exact than `compute_dtype` where that is a half."""
        if ggml.has_whole_blocks(weight):
            return ggml.linear(x, weight, bias).to(x.dtype)
        return super().matmul_4bit_step(x, weight, bias)

    def rms_norm(
        self, x: Tensor, weight: Tensor | None, eps: float, out_dtype: torch.dtype
    ) -> Tensor:
        num_rows, num_columns = x.shape
        y = torch.empty((num_rows, num_columns), dtype=out_dtype)
        weight_kind = KINDS[out_dtype if weight is None else weight.dtype]
        kernels.rms_norm(
            x.data_ptr(), row_stride(x), address_of(weight), eps, num_rows, num_columns,
            y.data_ptr(), KINDS[x.dtype], weight_kind, KINDS[out_dtype],
        )  # fmt: skip
        return y

    def add_rms_norm(
        self, hidden: Tensor, addends: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        if hidden.dtype == torch.float32 and len(addends) == 1:
            return step.add_rms_norm(hidden, addends, weight, eps, out_dtype)
        return super().add_rms_norm(hidden, addends, weight, eps, out_dtype)

    def projected_conv_step(
        self,
        x: Tensor,
        weight: Matrix | Weight4bit,
        bias: Tensor | None,
        conv: ConvWeights,
        *,
        conv_states: Tensor,
        slots: Tensor,
    ) -> tuple[Tensor, Tensor]:
        rows = {"conv_states": conv_states, "slots": slots}
        if isinstance(weight, Tensor):
            return step.projected_conv(x, weight, bias, conv, **rows)
        return super().projected_conv_step(x, weight, bias, conv, **rows)

    def projected_scan_step(
        self,
        x: Tensor,
        weights: ScanWeights,
        *,
        addends: Tensor,
        sizes: list[int],
        eps: float | None,
        dt_weight: Matrix | Weight4bit,
        z: Tensor,
        ssm_states: Tensor,
        slots: Tensor,
    ) -> Tensor:
        if isinstance(dt_weight, Tensor) and len(addends) == 1:
            return step.projected_scan(
                x, weights, addends=addends, eps=eps, dt_weight=dt_weight, z=z,
                ssm_states=ssm_states, slots=slots,
            )  # fmt: skip
        return super().projected_scan_step(
            x, weights, addends=addends, sizes=sizes, eps=eps, dt_weight=dt_weight, z=z,
            ssm_states=ssm_states, slots=slots,
        )  # fmt: skip

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
        split(run, x.shape[1], x.numel() // MIN_VALUES_PER_THREAD)
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
        split(run, x.shape[1], x.numel() // MIN_VALUES_PER_THREAD)
        return y

    allow_only = staticmethod(allow_only)
    sample = staticmethod(sample)


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
    check(weight, conv_states, slots)
    run = partial(
        kernels.conv,
        x.data_ptr(), row_stride(x), weight.data_ptr(), address_of(weights.bias),
        conv_states.data_ptr(), slots.data_ptr(), address_of(query_starts), slots.numel(), d, k,
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
    check(A, D, dt_bias, ssm_states, slots)
    run = partial(
        kernels.scan,
        x.data_ptr(), row_stride(x), dt.data_ptr(), row_stride(dt), A.data_ptr(),
        B.data_ptr(), row_stride(B), C.data_ptr(), row_stride(C), D.data_ptr(),
        z.data_ptr(), row_stride(z), dt_bias.data_ptr(), ssm_states.data_ptr(),
        slots.data_ptr(), address_of(query_starts), slots.numel(), d, n, y.data_ptr(),
        KINDS[x.dtype],
    )  # fmt: skip
    return y, run


NUMBA = CpuOps()
