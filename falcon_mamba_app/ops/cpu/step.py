"""A decode step's operations in as few calls as its sums allow: a layer takes five.

For a small model the calls themselves cost as much as its products. What each channel needs alone
is computed by the thread that multiplies for this channel, while its numbers are in the cache.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from falcon_mamba_app.ops import ConvWeights, ScanWeights
from falcon_mamba_app.ops.cpu import kernels, step_kernels
from falcon_mamba_app.ops.cpu.atomics import address_of_kernel
from falcon_mamba_app.ops.cpu.dense import part_of
from falcon_mamba_app.ops.cpu.pool import POOL, Sets
from falcon_mamba_app.ops.cpu.step_kernels import ARGUMENT_BYTES
from falcon_mamba_app.ops.cpu.tensors import KINDS, address_of, check, row_stride


def add_rms_norm(
    hidden: Tensor, addend: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`Ops.add_rms_norm` of a residual in fp32 and one addend."""
    check(hidden, addend)
    new, y = torch.empty(hidden.shape), torch.empty(hidden.shape, dtype=out_dtype)
    step_kernels.add_rms_norm(
        hidden.data_ptr(), addend.data_ptr(), weight.data_ptr(), eps, *hidden.shape,
        new.data_ptr(), y.data_ptr(), KINDS[addend.dtype], KINDS[weight.dtype], KINDS[out_dtype],
    )  # fmt: skip
    return new, y


def projected_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    conv: ConvWeights,
    *,
    conv_states: Tensor,
    slots: Tensor,
) -> tuple[Tensor, Tensor]:
    """`Ops.projected_conv_step` with a matrix in full precision."""
    (b, num_inputs), num_outputs, kind = x.shape, weight.shape[0], KINDS[x.dtype]
    assert x.dtype == weight.dtype == conv_states.dtype, (x.dtype, weight.dtype, conv_states.dtype)
    check(weight, conv.weight, conv_states, slots)
    width, d = conv.weight.shape
    projected = torch.empty((b, num_outputs), dtype=x.dtype)
    y = torch.empty((b, d), dtype=x.dtype)
    scratch = _scratch(b * num_inputs)
    args = scratch.data_ptr()
    step_kernels.prepare_conv(
        args, args + ARGUMENT_BYTES, x.data_ptr(), row_stride(x), weight.data_ptr(),
        address_of(bias), b, num_inputs, num_outputs, projected.data_ptr(), kind,
        conv.weight.data_ptr(), address_of(conv.bias), conv_states.data_ptr(), slots.data_ptr(),
        width, y.data_ptr(),
    )  # fmt: skip
    _run(step_kernels.projected_conv, x.dtype, args, num_outputs, part_of(weight))
    return y, projected[:, d:]


def projected_scan(
    x: Tensor,
    weights: ScanWeights,
    *,
    addends: Tensor,
    eps: float | None,
    dt_weight: Tensor,
    z: Tensor,
    ssm_states: Tensor,
    slots: Tensor,
) -> Tensor:
    """`Ops.projected_scan_step` with a matrix in full precision and one addend."""
    A, D, dt_bias = weights.A, weights.D, weights.dt_bias
    (b, d), n, rank = x.shape, A.shape[0], dt_weight.shape[1]
    assert x.dtype == dt_weight.dtype == z.dtype == addends.dtype, (x.dtype, addends.dtype)
    check(A, D, dt_bias, ssm_states, slots, dt_weight, addends)
    y, dt = torch.empty((b, d), dtype=x.dtype), torch.empty((b, d), dtype=x.dtype)
    normed = torch.empty((b, rank + 2 * n), dtype=x.dtype)
    scratch = _scratch(b * rank)
    args = scratch.data_ptr()
    step_kernels.prepare_scan(
        args, args + ARGUMENT_BYTES, normed.data_ptr(), addends.data_ptr(), eps is not None,
        eps or 0.0, rank, n, b, KINDS[x.dtype], dt_weight.data_ptr(), dt.data_ptr(), d,
        x.data_ptr(), row_stride(x), A.data_ptr(), D.data_ptr(), z.data_ptr(), row_stride(z),
        dt_bias.data_ptr(), ssm_states.data_ptr(), slots.data_ptr(), y.data_ptr(),
    )  # fmt: skip
    _run(step_kernels.projected_scan, x.dtype, args, d, kernels.BLOCK)
    return y


def _scratch(num_values: int) -> Tensor:
    """A job's arguments, and behind them so many fp32."""
    return torch.empty(ARGUMENT_BYTES + 4 * num_values, dtype=torch.uint8)


def _run(make: Any, dtype: torch.dtype, args: int, num_channels: int, part: int) -> None:
    POOL.run(
        _compiled(make, dtype)[0],
        Sets(args, ARGUMENT_BYTES, 1),
        num_channels,
        part=part,
        num_threads=torch.get_num_threads(),
    )


@cache
def _compiled(make: Any, dtype: torch.dtype) -> tuple[int, Any]:
    """The address of a kernel for this dtype, and the kernel."""
    kernel = make(KINDS[dtype])
    return address_of_kernel(kernel), kernel
