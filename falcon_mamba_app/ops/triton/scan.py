"""The selective scan as two Triton kernels: a prompt's chunk, and one token for each row.

Time is serial; (state, channel) pairs are the lanes. At 7B's 8192 channels × 16 states one sequence
already keeps the exponential unit of every multiprocessor busy. So a scan in parallel over time
would only add work, and carrying a state costs one read and one write of it per chunk.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.reference.recurrence import ScanWeights
from falcon_mamba_app.ops.triton.math import LOG2_E, silu, softplus
from falcon_mamba_app.ops.triton.overlap import OVERLAPPED, start_next, wait_for_inputs

# Channels per program, and tokens that it reads at a time. 16 channels × 16 states on one warp give
# 512 programs at 7B: 3.9 for each of an H100's 132 multiprocessors, one per warp scheduler.
PREFILL_CHANNELS, PREFILL_TOKENS, PREFILL_WARPS, PREFILL_STAGES = 16, 8, 1, 4
STEP_CHANNELS, STEP_WARPS = 64, 2


def scan_prefill(
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
    """`Ops.scan_prefill`, one program per sequence and block of channels."""
    A, D, dt_bias = weights.A, weights.D, weights.dt_bias
    _check(x, dt, A, B, C, z, ssm_states)
    n, d = A.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _scan_prefill_kernel[(triton.cdiv(d, PREFILL_CHANNELS), slots.shape[0])](
        x,
        dt,
        A,
        B,
        C,
        D,
        z,
        dt_bias,
        y,
        ssm_states,
        slots,
        query_starts,
        x.stride(0),
        dt.stride(0),
        B.stride(0),
        C.stride(0),
        z.stride(0),
        d,
        n,
        PREFILL_TOKENS,
        triton.next_power_of_2(n),
        PREFILL_CHANNELS,
        PREFILL_STAGES,
        num_warps=PREFILL_WARPS,
    )
    return y


def scan_step(
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
    """`Ops.scan_step`, one program per row and block of channels."""
    A, D, dt_bias = weights.A, weights.D, weights.dt_bias
    _check(x, dt, A, B, C, z, ssm_states)
    n, d = A.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _scan_step_kernel[(triton.cdiv(d, STEP_CHANNELS), slots.shape[0])](
        x,
        dt,
        A,
        B,
        C,
        D,
        z,
        dt_bias,
        y,
        ssm_states,
        slots,
        x.stride(0),
        dt.stride(0),
        B.stride(0),
        C.stride(0),
        z.stride(0),
        d,
        n,
        triton.next_power_of_2(n),
        STEP_CHANNELS,
        num_warps=STEP_WARPS,
        **OVERLAPPED,
    )
    return y


def _check(*tensors: Tensor) -> None:
    """Assert contiguity where the kernels use no stride; rows themselves may be strided."""
    *rows, ssm_states = tensors
    assert all(tensor.stride(1) == 1 for tensor in rows), [tensor.stride() for tensor in rows]
    assert ssm_states.is_contiguous(), ssm_states.stride()


@triton.jit(do_not_specialize_on_alignment=["slots_ptr"])  # as in _conv_prefill_kernel
def _scan_prefill_kernel(
    x_ptr,
    dt_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,
    z_ptr,
    dt_bias_ptr,
    y_ptr,
    ssm_states_ptr,
    slots_ptr,
    query_starts_ptr,
    x_stride,
    dt_stride,
    B_stride,
    C_stride,
    z_stride,
    d: tl.constexpr,
    n: tl.constexpr,
    TOKENS: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
    STAGES: tl.constexpr,
):
    seq = tl.program_id(1)
    start = tl.load(query_starts_ptr + seq)
    end = tl.load(query_starts_ptr + seq + 1)
    if start >= end:
        return
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    states = tl.arange(0, STATES)
    tokens = tl.arange(0, TOKENS)
    has_channel = channels < d
    cells = states[:, None] * d + channels[None, :]
    has_cell = (states < n)[:, None] & has_channel[None, :]

    # exp(Δ·A) = 2^(Δ·A·log₂e): the GPU computes powers of two.
    A = tl.load(A_ptr + cells, mask=has_cell, other=0.0) * LOG2_E
    D = tl.load(D_ptr + channels, mask=has_channel, other=0.0)
    dt_bias = tl.load(dt_bias_ptr + channels, mask=has_channel, other=0.0)
    state_ptrs = ssm_states_ptr + tl.load(slots_ptr + seq) * n * d + cells
    # (1, n, d) from here on, so that all values of the loop share one layout.
    state = tl.load(state_ptrs, mask=has_cell, other=0.0)[None, :, :]

    # The next tiles load while one is computed: with one warp per scheduler no other warp can fill
    # the time of a load.
    for low in tl.range(start, end, TOKENS, num_stages=STAGES):
        rows = low + tokens
        dt = _load_tile(dt_ptr, dt_stride, rows, end, channels, d)
        x = _load_tile(x_ptr, x_stride, rows, end, channels, d).to(tl.float32)
        z = _load_tile(z_ptr, z_stride, rows, end, channels, d)
        B = _load_tile(B_ptr, B_stride, rows, end, states, n)
        C = _load_tile(C_ptr, C_stride, rows, end, states, n)
        # Δ = 0 leaves the state unchanged, so rows past the end need no mask.
        delta = softplus(dt.to(tl.float32) + dt_bias)
        delta = tl.where((rows < end)[None, :, None], delta, 0.0)
        B = _once(B.to(tl.float32))[:, :, None]
        C = _once(C.to(tl.float32))[:, :, None]
        decay = tl.exp2(_once(delta)[:, None, :] * A)
        history = _once(delta * x)[:, None, :] * B
        for i in tl.static_range(TOKENS):
            is_now = (tokens == i)[:, None, None]
            state = _row(decay, is_now) * state + _row(history, is_now)
            history = tl.where(is_now, state, history)
        y = tl.sum(history * C, axis=1)[None, :, :]
        y = (y + D * x) * silu(z.to(tl.float32))
        mask = (rows < end)[None, :, None] & has_channel[None, None, :]
        tl.store(y_ptr + rows[None, :, None] * d + channels[None, None, :], y, mask=mask)
    tl.store(state_ptrs, tl.sum(state, axis=0), mask=has_cell)


@triton.jit
def _scan_step_kernel(
    x_ptr,
    dt_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,
    z_ptr,
    dt_bias_ptr,
    y_ptr,
    ssm_states_ptr,
    slots_ptr,
    x_stride,
    dt_stride,
    B_stride,
    C_stride,
    z_stride,
    d: tl.constexpr,
    n: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    start_next()
    row = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    states = tl.arange(0, STATES)
    has_channel, has_state = channels < d, states < n
    cells = states[:, None] * d + channels[None, :]
    has_cell = has_state[:, None] & has_channel[None, :]

    A = tl.load(A_ptr + cells, mask=has_cell, other=0.0)
    D = tl.load(D_ptr + channels, mask=has_channel, other=0.0)
    dt_bias = tl.load(dt_bias_ptr + channels, mask=has_channel, other=0.0)
    wait_for_inputs()
    state_ptrs = ssm_states_ptr + tl.load(slots_ptr + row) * n * d + cells
    state = tl.load(state_ptrs, mask=has_cell, other=0.0)
    dt = tl.load(dt_ptr + row * dt_stride + channels, mask=has_channel, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + row * x_stride + channels, mask=has_channel, other=0.0).to(tl.float32)
    z = tl.load(z_ptr + row * z_stride + channels, mask=has_channel, other=0.0).to(tl.float32)
    B = tl.load(B_ptr + row * B_stride + states, mask=has_state, other=0.0).to(tl.float32)
    C = tl.load(C_ptr + row * C_stride + states, mask=has_state, other=0.0).to(tl.float32)

    delta = softplus(dt + dt_bias)
    state = tl.exp2(delta[None, :] * (A * LOG2_E)) * state + (delta * x)[None, :] * B[:, None]
    tl.store(state_ptrs, state, mask=has_cell)
    y = (tl.sum(state * C[:, None], axis=0) + D * x) * silu(z)
    tl.store(y_ptr + row * d + channels, y, mask=has_channel)


@triton.jit
def _load_tile(ptr, stride, rows, end, columns, num_columns):
    """A tile (1, t, columns); `_once` needs the first axis."""
    mask = (rows < end)[None, :, None] & (columns < num_columns)[None, None, :]
    places = rows[None, :, None] * stride + columns[None, None, :]
    return tl.load(ptr + places, mask=mask, other=0.0)


@triton.jit
def _row(tile, is_row):
    """The row of `tile` (t, n, d) that `is_row` marks, as (1, n, d).

    It is summed as integers. If time is in registers, the compiler then reduces the whole sum to
    one register. It may not do so with floats, because −0.0 + 0.0 is not −0.0.
    """
    bits = tl.where(is_row, tile.to(tl.int32, bitcast=True), 0)
    return tl.sum(bits, axis=0, keep_dims=True).to(tl.float32, bitcast=True)


@triton.jit
def _once(tile):
    """`tile` (1, t, …) as (t, …): one lane computes each value and then sends it to the others.

    Otherwise the compiler sends the inputs to all lanes, and every lane repeats the work. It does
    not move work across a sum, and this sum, over an axis of size 1, is free.
    """
    return tl.sum(tile, axis=0)
