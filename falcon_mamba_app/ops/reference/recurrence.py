"""Norm, convolution and scan in plain torch; every kernel is tested against them.

`contract.Ops` documents them, with their shapes and their changes in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Tokens whose (n, d) factors are in memory at once. 2 buffers of 32·n·d floats fit a CPU's cache
# at the bundled model's size, and take 34 MB at the 7B's.
SCAN_TILE = 32


@dataclass(frozen=True, slots=True)
class ConvWeights:
    """The weights of one layer's convolution. weight: (k, d), the oldest input's first.
    bias: (d,) or None.
    """

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class ScanWeights:
    """The weights of one layer's scan, all fp32. A: (n, d), negative.  D, dt_bias: (d,)."""

    A: Tensor
    D: Tensor
    dt_bias: Tensor


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, out_dtype: torch.dtype) -> Tensor:
    """`Ops.rms_norm` over the last dimension, for any number of dimensions."""
    x = x.float()
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(eps))
    normed = x * scale
    return (normed if weight is None else normed.mul_(weight)).to(out_dtype)


def conv_prefill(
    x: Tensor,
    weights: ConvWeights,
    *,
    conv_states: Tensor,
    slots: Tensor,
    query_starts: Tensor,
) -> Tensor:
    """`Ops.conv_prefill`, one sequence after the other."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    starts = query_starts.tolist()
    for slot, start, end in zip(slots.tolist(), starts[:-1], starts[1:], strict=True):
        y[start:end] = _conv_sequence(x[start:end], weights, conv_states[slot])
    return y


def _conv_sequence(x: Tensor, weights: ConvWeights, conv_state: Tensor) -> Tensor:
    """One sequence of `conv_prefill`; conv_state (k−1, d) is overwritten."""
    num_tokens, width = x.shape[0], weights.weight.shape[0]
    window = torch.cat([conv_state.to(x.dtype), x])
    y = window[:num_tokens] * weights.weight[0].float()
    for j in range(1, width):
        y.addcmul_(window[j : j + num_tokens].float(), weights.weight[j].float())
    if weights.bias is not None:
        y.add_(weights.bias)
    conv_state.copy_(window[num_tokens:])
    return F.silu(y, inplace=True).to(x.dtype)


def conv_step(x: Tensor, weights: ConvWeights, *, conv_states: Tensor, slots: Tensor) -> Tensor:
    """`Ops.conv_step`."""
    window = torch.cat([conv_states[slots], x.unsqueeze(1).to(conv_states.dtype)], dim=1)
    conv_states[slots] = window[:, 1:]
    y = (window.float() * weights.weight.float()).sum(1)
    if weights.bias is not None:
        y.add_(weights.bias)
    return F.silu(y, inplace=True).to(x.dtype)


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
    """`Ops.scan_prefill`, one sequence after the other, SCAN_TILE tokens at a time."""
    y = torch.empty_like(x)
    starts = query_starts.tolist()
    for slot, start, end in zip(slots.tolist(), starts[:-1], starts[1:], strict=True):
        for low in range(start, end, SCAN_TILE):
            tile = slice(low, min(low + SCAN_TILE, end))
            y[tile] = _scan_tile(
                x[tile],
                weights,
                dt=dt[tile],
                B=B[tile],
                C=C[tile],
                z=z[tile],
                ssm_state=ssm_states[slot],
            )
    return y


def _scan_tile(
    x: Tensor,
    weights: ScanWeights,
    *,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    z: Tensor,
    ssm_state: Tensor,
) -> Tensor:
    """Up to SCAN_TILE tokens of one sequence; ssm_state (n, d) is advanced in place."""
    x = x.float()
    delta = F.softplus(dt.float() + weights.dt_bias)
    decay = (delta.unsqueeze(1) * weights.A).exp_()  # (t, n, d)
    # Holds the inputs first, and the states after the loop.
    states = (delta * x).unsqueeze(1) * B.float().unsqueeze(2)
    previous = ssm_state
    for decay_t, state_t in zip(decay.unbind(), states.unbind(), strict=True):
        previous = torch.addcmul(state_t, decay_t, previous, out=state_t)
    ssm_state.copy_(previous)
    y = torch.bmm(C.float().unsqueeze(1), states).squeeze(1)
    return y.addcmul_(x, weights.D).mul_(F.silu(z.float()))


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
    """`Ops.scan_step`."""
    dtype, x = x.dtype, x.float()
    delta = F.softplus(dt.float() + weights.dt_bias)
    decay = (delta.unsqueeze(1) * weights.A).exp_()  # (b, n, d)
    states = (delta * x).unsqueeze(1) * B.float().unsqueeze(2)
    states.addcmul_(decay, ssm_states[slots])
    ssm_states[slots] = states
    y = torch.bmm(C.float().unsqueeze(1), states).squeeze(1)
    return y.addcmul_(x, weights.D).mul_(F.silu(z.float())).to(dtype)
