"""The short convolution for training on a GPU: Triton kernels, forward and backward.

The backward pass goes twice over memory: first the gradient before silu and the sums for the
weights, then the gradient of the input, which needs the former of the tokens that follow.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_T, BLOCK_D = 32, 64
NUM_WARPS = 4


@triton.jit
def _window(
    x_ptr, weight_ptr, bias_ptr, x_row, age, tokens, channels, num_channels, x_stride,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """The convolution before silu of one tile: (BLOCK_T, BLOCK_D)."""
    y = tl.zeros([tokens.shape[0], channels.shape[0]], dtype=tl.float32)
    y += tl.load(bias_ptr + channels)[None, :]
    for back in tl.static_range(WIDTH):
        weight = tl.load(weight_ptr + (WIDTH - 1 - back) * num_channels + channels)
        at = x_row + (tokens[:, None] - back) * x_stride + channels[None, :]
        seen = tl.load(x_ptr + at, mask=(age >= back)[:, None], other=0.0).to(tl.float32)
        y += seen * weight[None, :]
    return y


@triton.jit
def _forward(
    x_ptr, weight_ptr, bias_ptr, age_ptr, y_ptr, num_tokens, num_channels, x_stride,
    WIDTH: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    tokens = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    channels = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    row = tl.program_id(2).to(tl.int64) * num_tokens
    age = tl.load(age_ptr + row + tokens)
    y = _window(
        x_ptr, weight_ptr, bias_ptr, row * x_stride, age, tokens, channels, num_channels,
        x_stride, WIDTH,
    )  # fmt: skip
    at = (row + tokens)[:, None] * num_channels + channels[None, :]
    tl.store(y_ptr + at, (y * tl.sigmoid(y)).to(y_ptr.dtype.element_ty))


@triton.jit
def _backward_weights(
    x_ptr, weight_ptr, bias_ptr, age_ptr, dy_ptr, open_ptr, sums_ptr,
    num_tokens, num_channels, x_stride,
    WIDTH: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """dy before silu, and each program's share of the sums for weight and bias."""
    channels = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    row = tl.program_id(2).to(tl.int64) * num_tokens
    program = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    sums = sums_ptr + program.to(tl.int64) * (WIDTH + 1) * num_channels + channels
    for tile in range(TILES):
        tokens = (tl.program_id(0) * TILES + tile) * BLOCK_T + tl.arange(0, BLOCK_T)
        age = tl.load(age_ptr + row + tokens)
        y = _window(
            x_ptr, weight_ptr, bias_ptr, row * x_stride, age, tokens, channels, num_channels,
            x_stride, WIDTH,
        )  # fmt: skip
        at = (row + tokens)[:, None] * num_channels + channels[None, :]
        gate = tl.sigmoid(y)
        opened = tl.load(dy_ptr + at).to(tl.float32) * gate * (1.0 + y * (1.0 - gate))
        tl.store(open_ptr + at, opened.to(open_ptr.dtype.element_ty))
        for back in tl.static_range(WIDTH):
            x_at = row * x_stride + (tokens[:, None] - back) * x_stride + channels[None, :]
            seen = tl.load(x_ptr + x_at, mask=(age >= back)[:, None], other=0.0)
            part = sums + (WIDTH - 1 - back) * num_channels
            tl.store(part, tl.load(part) + tl.sum(seen.to(tl.float32) * opened, 0))
        part = sums + WIDTH * num_channels
        tl.store(part, tl.load(part) + tl.sum(opened, 0))
        tl.debug_barrier()  # the next tile reads what this one has stored


@triton.jit
def _backward_input(
    weight_ptr, age_ptr, open_ptr, dx_ptr, num_tokens, num_channels,
    WIDTH: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dx[t] = Σ_j weight[j]·opened[t + j], of the tokens that see this one."""
    tokens = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    channels = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    row = tl.program_id(2).to(tl.int64) * num_tokens
    dx = tl.zeros([BLOCK_T, BLOCK_D], dtype=tl.float32)
    for ahead in tl.static_range(WIDTH):
        is_inside = tokens + ahead < num_tokens
        age = tl.load(age_ptr + row + tokens + ahead, mask=is_inside, other=0)
        sees = is_inside & (age >= ahead)
        at = (row + tokens + ahead)[:, None] * num_channels + channels[None, :]
        opened = tl.load(open_ptr + at, mask=sees[:, None], other=0.0).to(tl.float32)
        dx += opened * tl.load(weight_ptr + (WIDTH - 1 - ahead) * num_channels + channels)[None, :]
    at = (row + tokens)[:, None] * num_channels + channels[None, :]
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty))


class TritonConv(torch.autograd.Function):
    """`training.model.conv_silu` on a GPU; t must be a multiple of BLOCK_T, d of BLOCK_D."""

    @staticmethod
    def forward(ctx, x, weight, bias, age):
        b, t, d = x.shape
        if t % BLOCK_T or d % BLOCK_D:
            raise ValueError(f"{t} tokens, {d} channels: want multiples of {BLOCK_T}, {BLOCK_D}")
        assert x.stride(2) == 1 and x.stride(0) == t * x.stride(1), f"{x.stride()=}"
        weight = weight.T.contiguous()  # (k, d)
        y = torch.empty(b, t, d, dtype=x.dtype, device=x.device)
        _forward[(t // BLOCK_T, d // BLOCK_D, b)](
            x, weight, bias, age, y, t, d, x.stride(1),
            WIDTH=weight.shape[0], BLOCK_T=BLOCK_T, BLOCK_D=BLOCK_D, num_warps=NUM_WARPS,
        )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, age)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, weight, bias, age = ctx.saved_tensors
        b, t, d = x.shape
        width, tiles = weight.shape[0], t // BLOCK_T
        # Eight programs along a row are enough to fill a GPU, and leave few sums to add up.
        programs = max(n for n in (8, 4, 2, 1) if tiles % n == 0)
        dy = dy.contiguous()
        opened, dx = torch.empty_like(dy), torch.empty_like(dy)
        sums = torch.zeros(programs * b, width + 1, d, dtype=torch.float32, device=x.device)
        shape = {"WIDTH": width, "BLOCK_T": BLOCK_T, "BLOCK_D": BLOCK_D, "num_warps": NUM_WARPS}
        _backward_weights[(programs, d // BLOCK_D, b)](
            x, weight, bias, age, dy, opened, sums, t, d, x.stride(1),
            TILES=tiles // programs, **shape,
        )  # fmt: skip
        _backward_input[(tiles, d // BLOCK_D, b)](weight, age, opened, dx, t, d, **shape)
        total = sums.sum(0)
        return dx, total[:width].T, total[width], None
