"""The selective scan with gradients: plain torch on the CPU, Triton kernels on a GPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    keep: Tensor,
) -> Tensor:
    """The recurrence over whole rows, each from an empty state.

    Δ = softplus(dt + dt_bias);  h ← keep·exp(Δ·A)·h + Δ·B·x;  y = (C·h + D·x)·silu(z)

    Args:
        x, dt, z: (b, t, d); z may be a view with a larger row stride.
        A: (d, n) fp32, negative.  D, dt_bias: (d,) fp32.
        B, C: (b, t, n), already normalised.
        keep: (b, t) uint8, 0 at the first token of a document, which must not see the one before.

    Returns:
        (b, t, d) in x's dtype.
    """
    if x.is_cuda:
        from training.triton_scan import TritonScan

        y: Tensor = TritonScan.apply(x, dt, A, B, C, D, z, dt_bias, keep)  # type: ignore[no-untyped-call]
        return y
    return reference_scan(x, dt, A, B, C, D, z, dt_bias, keep)


def reference_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    keep: Tensor,
) -> Tensor:
    """`selective_scan` token by token; autograd differentiates it."""
    dtype, x = x.dtype, x.float()
    delta = F.softplus(dt.float() + dt_bias)
    decay = torch.exp(delta.unsqueeze(-1) * A) * keep[:, :, None, None]  # (b, t, d, n)
    added = (delta * x).unsqueeze(-1) * B.float().unsqueeze(2)
    state, states = torch.zeros_like(added[:, 0]), []
    for decay_t, added_t in zip(decay.unbind(1), added.unbind(1), strict=True):
        state = torch.addcmul(added_t, decay_t, state)
        states.append(state)
    y = torch.einsum("btdn,btn->btd", torch.stack(states, 1), C.float()) + x * D
    return (y * F.silu(z.float())).to(dtype)
