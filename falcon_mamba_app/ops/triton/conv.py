"""The short causal convolution as two Triton kernels: a prompt's chunk, and one token for each row.

Both need only a few multiplications per value read, so memory limits their speed. One program reads
and rewrites a sequence's window of k−1 inputs, with a barrier between, so there is no second copy.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.reference.recurrence import ConvWeights
from falcon_mamba_app.ops.triton.math import silu
from falcon_mamba_app.ops.triton.overlap import OVERLAPPED, start_next, wait_for_inputs

PREFILL_TOKENS, PREFILL_CHANNELS, PREFILL_WARPS = 32, 128, 8
STEP_CHANNELS, STEP_WARPS = 256, 1


def conv_prefill(
    x: Tensor,
    weights: ConvWeights,
    *,
    conv_states: Tensor,
    slots: Tensor,
    query_starts: Tensor,
) -> Tensor:
    """`Ops.conv_prefill`, one program per sequence, tile of tokens and tile of channels."""
    assert x.stride(1) == 1 and conv_states.is_contiguous(), (x.stride(), conv_states.stride())
    (t, d), k = x.shape, weights.weight.shape[0]
    y = torch.empty((t, d), dtype=x.dtype, device=x.device)
    # Only the device knows the lengths: each sequence gets tiles for all tokens of the call, and
    # the tiles past its end return at once.
    grid = (triton.cdiv(d, PREFILL_CHANNELS), triton.cdiv(t, PREFILL_TOKENS), slots.shape[0])
    _conv_prefill_kernel[grid](
        x,
        weights.weight,
        weights.bias,
        y,
        conv_states,
        slots,
        query_starts,
        x.stride(0),
        d,
        k,
        PREFILL_TOKENS,
        PREFILL_CHANNELS,
        triton.next_power_of_2(k - 1),
        num_warps=PREFILL_WARPS,
    )
    return y


def conv_step(x: Tensor, weights: ConvWeights, *, conv_states: Tensor, slots: Tensor) -> Tensor:
    """`Ops.conv_step`, one program for each row and block of channels."""
    assert x.stride(1) == 1 and conv_states.is_contiguous(), (x.stride(), conv_states.stride())
    (b, d), k = x.shape, weights.weight.shape[0]
    y = torch.empty((b, d), dtype=x.dtype, device=x.device)
    _conv_step_kernel[(triton.cdiv(d, STEP_CHANNELS), b)](
        x, weights.weight, weights.bias, y, conv_states, slots, x.stride(0), d, k,
        triton.next_power_of_2(k - 1), STEP_CHANNELS, num_warps=STEP_WARPS, **OVERLAPPED,
    )  # fmt: skip
    return y


# After an odd number of rows the slots are unaligned; a kernel that knew it would not be faster.
@triton.jit(do_not_specialize_on_alignment=["slots_ptr"])
def _conv_prefill_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    conv_states_ptr,
    slots_ptr,
    query_starts_ptr,
    x_stride,
    d: tl.constexpr,
    k: tl.constexpr,
    TOKENS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WINDOW: tl.constexpr,
):
    tile, seq = tl.program_id(1), tl.program_id(2)
    start = tl.load(query_starts_ptr + seq)
    end = tl.load(query_starts_ptr + seq + 1)
    if start + tile * TOKENS >= end:
        return
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    has_channel = channels < d
    rows = start + tile * TOKENS + tl.arange(0, TOKENS)
    mask = (rows < end)[:, None] & has_channel[None, :]
    window_ptr = conv_states_ptr + tl.load(slots_ptr + seq) * (k - 1) * d

    y = tl.zeros((TOKENS, CHANNELS), dtype=tl.float32)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + channels, mask=has_channel, other=0.0).to(tl.float32)[None, :]
    for j in tl.static_range(k):
        weight = tl.load(weight_ptr + j * d + channels, mask=has_channel, other=0.0)
        sources = rows - (k - 1) + j
        inputs = _load_new(x_ptr, x_stride, sources, start, channels, mask)
        if tile == 0:
            inputs += _load_old(window_ptr, sources, start, channels, mask, d, k).to(inputs.dtype)
        y += weight.to(tl.float32)[None, :] * inputs.to(tl.float32)
    tl.store(y_ptr + rows[:, None] * d + channels[None, :], silu(y), mask=mask)

    # Only a sequence's first tile reads its window, so only that tile may write it.
    if tile == 0:
        places = tl.arange(0, WINDOW)
        has_place = (places < k - 1)[:, None] & has_channel[None, :]
        last = end - (k - 1) + places
        window = _load_old(window_ptr, last, start, channels, has_place, d, k)
        window += _load_new(x_ptr, x_stride, last, start, channels, has_place).to(window.dtype)
        tl.debug_barrier()
        tl.store(window_ptr + places[:, None] * d + channels[None, :], window, mask=has_place)


@triton.jit
def _load_new(x_ptr, x_stride, sources, start, channels, mask):
    """The inputs at token positions `sources`, 0 for those before the sequence's start."""
    places = sources[:, None] * x_stride + channels[None, :]
    return tl.load(x_ptr + places, mask=mask & (sources >= start)[:, None], other=0.0)


@triton.jit
def _load_old(window_ptr, sources, start, channels, mask, d, k):
    """The inputs at token positions `sources` before the sequence's start, 0 for later ones."""
    places = (sources - start + (k - 1))[:, None] * d + channels[None, :]
    return tl.load(window_ptr + places, mask=mask & (sources < start)[:, None], other=0.0)


@triton.jit
def _conv_step_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    conv_states_ptr,
    slots_ptr,
    x_stride,
    d: tl.constexpr,
    k: tl.constexpr,
    WINDOW: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    start_next()
    row = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    places = tl.arange(0, WINDOW)
    mask = channels < d
    cells, has_cell = (
        places[:, None] * d + channels[None, :],
        (places < k - 1)[:, None] & mask[None, :],
    )
    weights = tl.load(weight_ptr + cells, mask=has_cell, other=0.0).to(tl.float32)
    last = tl.load(weight_ptr + (k - 1) * d + channels, mask=mask, other=0.0).to(tl.float32)
    wait_for_inputs()
    window_ptr = conv_states_ptr + tl.load(slots_ptr + row) * (k - 1) * d
    window = tl.load(window_ptr + cells, mask=has_cell, other=0.0)
    x = tl.load(x_ptr + row * x_stride + channels, mask=mask, other=0.0)
    y = last * x.to(tl.float32) + tl.sum(weights * window.to(tl.float32), axis=0)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + channels, mask=mask, other=0.0).to(tl.float32)
    # All of the window has been read, by this program and by no other.
    tl.debug_barrier()
    tl.store(window_ptr + cells - d, window, mask=has_cell & (places > 0)[:, None])
    tl.store(window_ptr + (k - 2) * d + channels, x, mask=mask)
    tl.store(y_ptr + row * d + channels, silu(y), mask=mask)
