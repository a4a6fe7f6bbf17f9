"""The selective scan for training on a GPU: Triton kernels, forward and backward.

One warp owns BLOCK_D channels of one row and walks over time in tiles of BLOCK_T tokens, for each
tile over the n states. A thread holds whole tiles of its channels, so the recurrence is a chain of
multiply-adds in registers, and the sum over states is one register too. The forward pass keeps the
state before each tile; the backward pass rebuilds the states within a tile from it, so nothing of
size (t, d, n) ever reaches memory. Sums over programs are taken afterwards, in a fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_T = 8  # tokens of a tile, and between two kept states
BLOCK_D = 32  # channels of a warp
UNROLL = 2  # states whose chains of multiply-adds run side by side

LOG2_E = tl.constexpr(1.4426950408889634)
# As a time step it makes every decay 0: what a document's first token does to the state before it.
FOREVER = tl.constexpr(1e30)

# The strides are not known to be multiples of 16: else loads would be vectors along the channels,
# and time would be spread over threads.
UNKNOWN = ["num_channels", "z_stride"]


@triton.jit
def _follow(decay_left, state_left, decay_right, state_right):
    """Two stretches of h ← decay·h + state as one."""
    return decay_left * decay_right, decay_right * state_left + state_right


@triton.jit
def _softplus(x):
    # Past 20 the logarithm changes nothing in fp32, and exp would overflow past 88.
    return tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(tl.minimum(x, 20.0))))


@triton.jit(do_not_specialize=UNKNOWN)
def _forward(
    x_ptr, dt_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, bias_ptr, keep_ptr,
    y_ptr, starts_ptr, num_tokens, num_channels, z_stride,
    N: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """y (b, t, d), and the state before each tile and after the last:
    starts (b, t / BLOCK_T + 1, n, d) fp32, zeros where a row begins."""
    channels = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    row = tl.program_id(1).to(tl.int64)
    tokens = tl.arange(0, BLOCK_T)
    D = tl.load(D_ptr + channels)
    bias = tl.load(bias_ptr + channels)
    is_first = (tokens == 0)[:, None]
    is_last = (tokens == BLOCK_T - 1)[:, None]
    num_tiles = num_tokens // BLOCK_T
    for tile in range(num_tiles):
        at = row * num_tokens + tile * BLOCK_T + tokens
        wide = at[:, None] * num_channels + channels[None, :]
        x = tl.load(x_ptr + wide).to(tl.float32)
        z = tl.load(z_ptr + at[:, None] * z_stride + channels[None, :]).to(tl.float32)
        delta = _softplus(tl.load(dt_ptr + wide).to(tl.float32) + bias[None, :])
        keep = tl.load(keep_ptr + at)
        span = tl.where((keep > 0)[:, None], delta, FOREVER)
        u = delta * x
        y = x * D[None, :]
        starts = starts_ptr + (row * (num_tiles + 1) + tile) * N * num_channels + channels
        for n in tl.range(0, N, loop_unroll_factor=UNROLL):
            column = (row * N + n) * num_tokens + tile * BLOCK_T + tokens
            B = tl.load(B_ptr + column).to(tl.float32)
            C = tl.load(C_ptr + column).to(tl.float32)
            A = tl.load(A_ptr + n * num_channels + channels) * LOG2_E
            start = tl.load(starts + n * num_channels)
            decay = tl.exp2(span * A[None, :])
            added = u * B[:, None]
            added = tl.where(is_first, added + decay * start[None, :], added)
            _, h = tl.associative_scan((decay, added), 0, _follow)
            y += h * C[:, None]
            end = tl.sum(tl.where(is_last, h, 0.0), 0)
            tl.store(starts + (N + n) * num_channels, end)
        tl.store(y_ptr + wide, (y * z * tl.sigmoid(z)).to(y_ptr.dtype.element_ty))
        tl.debug_barrier()  # the next tile's threads read what this one's have stored


@triton.jit(do_not_specialize=UNKNOWN)
def _backward(
    x_ptr, dt_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, bias_ptr, keep_ptr, starts_ptr, dy_ptr,
    dx_ptr, ddt_ptr, dA_ptr, dB_ptr, dC_ptr, dD_ptr, dz_ptr, dbias_ptr, dh_ptr,
    num_rows, num_tokens, num_channels, z_stride,
    N: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """The gradients, walking from the last tile to the first. dA (b, n, d), dD and dbias (b, d)
    are of each row, dB and dC (d / BLOCK_D, b, n, t) of each block of channels. dh (b, n, d), zeros
    at first, carries the gradient of the state from tile to tile; dA must be zeros too.
    """
    block = tl.program_id(0)
    channels = block * BLOCK_D + tl.arange(0, BLOCK_D)
    row = tl.program_id(1).to(tl.int64)
    tokens = tl.arange(0, BLOCK_T)
    D = tl.load(D_ptr + channels)
    bias = tl.load(bias_ptr + channels)
    is_first = (tokens == 0)[:, None]
    is_last = (tokens == BLOCK_T - 1)[:, None]
    has_after = tokens < BLOCK_T - 1
    dD = tl.zeros([BLOCK_D], dtype=tl.float32)
    dbias = tl.zeros([BLOCK_D], dtype=tl.float32)
    num_tiles = num_tokens // BLOCK_T
    for step in range(num_tiles):
        tile = num_tiles - 1 - step
        at = row * num_tokens + tile * BLOCK_T + tokens
        wide = at[:, None] * num_channels + channels[None, :]
        x = tl.load(x_ptr + wide).to(tl.float32)
        dt = tl.load(dt_ptr + wide).to(tl.float32) + bias[None, :]
        dt_after = tl.load(dt_ptr + wide + num_channels, mask=has_after[:, None], other=0.0)
        z = tl.load(z_ptr + at[:, None] * z_stride + channels[None, :]).to(tl.float32)
        dy = tl.load(dy_ptr + wide).to(tl.float32)
        keep = tl.load(keep_ptr + at)
        keep_after = tl.load(keep_ptr + at + 1, mask=has_after, other=0)
        delta = _softplus(dt)
        span = tl.where((keep > 0)[:, None], delta, FOREVER)
        # The next token's, read from memory: registers cannot be shifted along time.
        delta_after = _softplus(dt_after.to(tl.float32) + bias[None, :])
        span_after = tl.where((keep_after > 0)[:, None], delta_after, FOREVER)
        u = delta * x
        gate = tl.sigmoid(z)
        dy_open = dy * z * gate
        y = x * D[None, :]
        through_input = tl.zeros([BLOCK_T, BLOCK_D], dtype=tl.float32)
        through_decay = tl.zeros([BLOCK_T, BLOCK_D], dtype=tl.float32)
        starts = starts_ptr + (row * (num_tiles + 1) + tile) * N * num_channels + channels
        for n in tl.range(0, N, loop_unroll_factor=UNROLL):
            column = (row * N + n) * num_tokens + tile * BLOCK_T + tokens
            B = tl.load(B_ptr + column).to(tl.float32)
            C = tl.load(C_ptr + column).to(tl.float32)
            A = tl.load(A_ptr + n * num_channels + channels)
            start = tl.load(starts + n * num_channels)
            carried = (row * N + n) * num_channels + channels
            dh = tl.load(dh_ptr + carried)
            decay = tl.exp2(span * (A * LOG2_E)[None, :])
            added = u * B[:, None]
            first = tl.where(is_first, added + decay * start[None, :], added)
            _, h = tl.associative_scan((decay, first), 0, _follow)
            y += h * C[:, None]

            decay_after = tl.exp2(span_after * (A * LOG2_E)[None, :])
            dhs = dy_open * C[:, None]
            dhs = tl.where(is_last, dhs + dh[None, :], dhs)
            # Flipping along a thread's own registers costs nothing; reverse=True would shuffle.
            flipped = (tl.flip(decay_after, 0), tl.flip(dhs, 0))
            _, dhs = tl.associative_scan(flipped, 0, _follow)
            dhs = tl.flip(dhs, 0)
            tl.store(dh_ptr + carried, tl.sum(tl.where(is_first, decay * dhs, 0.0), 0))

            of_decay = dhs * (h - added)  # h − added is what the token kept of the state
            through_decay += of_decay * A[None, :]
            through_input += dhs * B[:, None]
            dA = tl.load(dA_ptr + carried)
            tl.store(dA_ptr + carried, dA + tl.sum(of_decay * delta, 0))
            shared = (block.to(tl.int64) * num_rows + row) * N * num_tokens
            shared += n * num_tokens + tile * BLOCK_T + tokens
            tl.store(dB_ptr + shared, tl.sum(dhs * u, 1))
            tl.store(dC_ptr + shared, tl.sum(h * dy_open, 1))
        dz = dy * y * gate * (1.0 + z * (1.0 - gate))
        tl.store(dz_ptr + wide, dz.to(dz_ptr.dtype.element_ty))
        ddt = (through_decay + x * through_input) * tl.sigmoid(dt)
        tl.store(ddt_ptr + wide, ddt.to(ddt_ptr.dtype.element_ty))
        dx = delta * through_input + dy_open * D[None, :]
        tl.store(dx_ptr + wide, dx.to(dx_ptr.dtype.element_ty))
        dbias += tl.sum(ddt, 0)
        dD += tl.sum(dy_open * x, 0)
        tl.debug_barrier()  # the next tile's threads read what this one's have stored
    tl.store(dD_ptr + row * num_channels + channels, dD)
    tl.store(dbias_ptr + row * num_channels + channels, dbias)


class TritonScan(torch.autograd.Function):
    """`training.scan.selective_scan` on a GPU; t must be a multiple of BLOCK_T, d of BLOCK_D."""

    @staticmethod
    def forward(ctx, x, dt, A, B, C, D, z, dt_bias, keep):
        b, t, d = x.shape
        n = A.shape[1]
        if t % BLOCK_T or d % BLOCK_D:
            raise ValueError(f"{t} tokens, {d} channels: want multiples of {BLOCK_T}, {BLOCK_D}")
        assert z.stride(2) == 1 and z.stride(0) == t * z.stride(1), f"{z.stride()=}"
        x, dt, A = x.contiguous(), dt.contiguous(), A.T.contiguous()
        B, C = B.transpose(1, 2).contiguous(), C.transpose(1, 2).contiguous()
        y = torch.empty_like(x)
        # One more than there are tiles: the last is the state after the row, which nobody reads.
        starts = torch.empty(b, t // BLOCK_T + 1, n, d, dtype=torch.float32, device=x.device)
        starts[:, 0] = 0.0
        _forward[(d // BLOCK_D, b)](
            x, dt, A, B, C, D, z, dt_bias, keep, y, starts, t, d, z.stride(1),
            N=n, BLOCK_T=BLOCK_T, BLOCK_D=BLOCK_D, UNROLL=UNROLL, num_warps=1,
        )  # fmt: skip
        ctx.save_for_backward(x, dt, A, B, C, D, z, dt_bias, keep, starts)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, dt, A, B, C, D, z, dt_bias, keep, starts = ctx.saved_tensors
        b, t, d = x.shape
        n = A.shape[0]
        dx, ddt, dz = torch.empty_like(x), torch.empty_like(dt), torch.empty_like(x)
        fp32 = {"dtype": torch.float32, "device": x.device}
        dA, dh = torch.zeros(b, n, d, **fp32), torch.zeros(b, n, d, **fp32)
        dB, dC = (torch.empty(d // BLOCK_D, b, n, t, **fp32) for _ in range(2))
        dD, dbias = (torch.empty(b, d, **fp32) for _ in range(2))
        _backward[(d // BLOCK_D, b)](
            x, dt, A, B, C, D, z, dt_bias, keep, starts, dy.contiguous(),
            dx, ddt, dA, dB, dC, dD, dz, dbias, dh, b, t, d, z.stride(1),
            N=n, BLOCK_T=BLOCK_T, BLOCK_D=BLOCK_D, UNROLL=UNROLL, num_warps=1,
        )  # fmt: skip
        dB, dC = (each.sum(0).transpose(1, 2).to(B.dtype) for each in (dB, dC))
        return dx, ddt, dA.sum(0).T, dB, dC, dD.sum(0), dz, dbias.sum(0), None
