"""One row from x_proj to the gate as one Triton kernel: three norms, dt_proj, and the scan's step.

As separate kernels these are three launches of 5 µs in all, of which the GPU's memory needs 2. Here
each program repeats the norms, over 288 numbers, and computes dt_proj for its own channels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.reference.matrix import Matrix
from falcon_mamba_app.ops.reference.recurrence import ScanWeights
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit
from falcon_mamba_app.ops.triton import linear_4bit
from falcon_mamba_app.ops.triton.linear import group, stored
from falcon_mamba_app.ops.triton.linear_4bit_kernels import absmax_of, table_of, unpacked
from falcon_mamba_app.ops.triton.math import LOG2_E, silu, softplus
from falcon_mamba_app.ops.triton.overlap import OVERLAPPED, start_next, wait_for_inputs

CHANNELS, WARPS = 16, 8


def is_faster(addends: Tensor, dt_weight: Matrix | Weight4bit) -> bool:
    """Whether the kernel below applies: several rows are faster with one launch per part."""
    rank = dt_weight.shape[1]
    if isinstance(dt_weight, Weight4bit):
        fits = dt_weight.blocksize == linear_4bit.BLOCK and rank % linear_4bit.BLOCK == 0
    else:
        fits = group(dt_weight) == rank
    return fits and addends.shape[:2] == (1, 1) and rank == triton.next_power_of_2(rank)


def projected_scan_step(
    x: Tensor,
    weights: ScanWeights,
    *,
    addends: Tensor,
    eps: float,
    dt_weight: Matrix | Weight4bit,
    z: Tensor,
    ssm_states: Tensor,
    slots: Tensor,
) -> Tensor:
    """`Ops.projected_scan_step`, where `is_faster`."""
    (n, d), rank = weights.A.shape, dt_weight.shape[1]
    if isinstance(dt_weight, Weight4bit):
        storage = linear_4bit.storage(dt_weight)
    else:
        storage = (*stored(dt_weight), None, None, None, None)
    assert all(part is None or part.is_contiguous() for part in (*storage, ssm_states))
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _projected_scan_step_kernel[(triton.cdiv(d, CHANNELS),)](
        x, addends, *storage, weights.A, weights.D, z, weights.dt_bias, y, ssm_states,
        slots, eps, d, n, rank, triton.next_power_of_2(n), CHANNELS, num_warps=WARPS, **OVERLAPPED,
    )  # fmt: skip
    return y


@triton.jit
def _projected_scan_step_kernel(
    x_ptr,
    addends_ptr,
    dt_weight_ptr,
    dt_scale_ptr,
    code_ptr,
    nested_code_ptr,
    nested_scale_ptr,
    offset_ptr,
    A_ptr,
    D_ptr,
    z_ptr,
    dt_bias_ptr,
    y_ptr,
    ssm_states_ptr,
    slots_ptr,
    eps,
    d: tl.constexpr,
    n: tl.constexpr,
    RANK: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    start_next()
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    states, ranks = tl.arange(0, STATES), tl.arange(0, RANK)
    has_channel, has_state = channels < d, states < n
    cells = states[:, None] * d + channels[None, :]
    has_cell = has_state[:, None] & has_channel[None, :]
    if code_ptr is None:
        dt_weight = tl.load(
            dt_weight_ptr + channels[:, None] * RANK + ranks[None, :],
            mask=has_channel[:, None],
            other=0,
            eviction_policy="evict_first",
        )
    else:
        rows = tl.minimum(channels, d - 1)[:, None]
        word_ptrs = dt_weight_ptr + rows * (RANK // 8) + tl.arange(0, RANK // 8)[None, :]
        words = tl.load(word_ptrs, eviction_policy="evict_first")
        blocks = rows * (RANK // 64) + tl.arange(0, RANK // 64)[None, :]
        absmax = absmax_of(dt_scale_ptr, blocks, nested_code_ptr, nested_scale_ptr, offset_ptr)
        dt_weight = unpacked(table_of(code_ptr, word_ptrs), words)
        dt_weight = dt_weight.reshape(CHANNELS, RANK // 64, 64) * absmax[:, :, None]
        dt_weight = dt_weight.reshape(CHANNELS, RANK)
    A = tl.load(A_ptr + cells, mask=has_cell, other=0.0) * LOG2_E
    if dt_scale_ptr is not None and code_ptr is None:
        dt_scale = tl.load(dt_scale_ptr + channels, mask=has_channel, other=0.0)
    D = tl.load(D_ptr + channels, mask=has_channel, other=0.0)
    dt_bias = tl.load(dt_bias_ptr + channels, mask=has_channel, other=0.0)
    wait_for_inputs()
    state_ptrs = ssm_states_ptr + tl.load(slots_ptr) * n * d + cells
    state = tl.load(state_ptrs, mask=has_cell, other=0.0)
    x = tl.load(x_ptr + channels, mask=has_channel, other=0.0).to(tl.float32)
    z = tl.load(z_ptr + channels, mask=has_channel, other=0.0).to(tl.float32)
    dtype = x_ptr.dtype.element_ty
    dt = _normed(tl.load(addends_ptr + ranks).to(tl.float32), RANK, eps, dtype)
    inputs = addends_ptr + RANK + states
    B = _normed(tl.load(inputs, mask=has_state, other=0.0).to(tl.float32), n, eps, dtype)
    C = _normed(tl.load(inputs + n, mask=has_state, other=0.0).to(tl.float32), n, eps, dtype)

    dt = tl.sum(dt_weight.to(tl.float32) * dt[None, :], axis=1)
    if dt_scale_ptr is not None and code_ptr is None:
        dt *= dt_scale
    dt = dt.to(dtype).to(tl.float32)  # rounded where the separate kernels would round too
    delta = softplus(dt + dt_bias)
    state = tl.exp2(delta[None, :] * A) * state + (delta * x)[None, :] * B[:, None]
    tl.store(state_ptrs, state, mask=has_cell)
    y = (tl.sum(state * C[:, None], axis=0) + D * x) * silu(z)
    tl.store(y_ptr + channels, y, mask=has_channel)


@triton.jit
def _normed(values, num_values: tl.constexpr, eps, dtype: tl.constexpr):
    scale = tl.rsqrt(tl.sum(values * values, axis=0) / num_values + eps)
    return (values * scale).to(dtype).to(tl.float32)
