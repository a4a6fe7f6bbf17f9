"""The operations in plain torch: the truth that every kernel is tested against, and the CPU path.

Arithmetic is fp32 whatever the inputs' dtype. Every operation works in place on the named rows of
the state tensors and knows nothing of layers, sequences or checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_mamba_app.ops import Ops

# Tokens whose (n, d) factors are in memory at once. 2 buffers of 32·n·d floats fit a CPU's cache
# at the bundled model's size, and stay at 34 MB at 7B's.
SCAN_TILE = 32


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, out_dtype: torch.dtype) -> Tensor:
    """x / sqrt(mean(x²) + eps), times `weight` if there is one, over the last dimension.

    Args:
        x: (…, m), any dtype.  weight: (m,) or None.

    Returns:
        (…, m) in `out_dtype`.
    """
    x = x.float()
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(eps))
    normed = x * scale
    return (normed if weight is None else normed.mul_(weight)).to(out_dtype)


def conv_prefill(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    conv_states: Tensor,
    slots: Tensor,
    query_starts: Tensor,
) -> Tensor:
    """Causal depthwise convolution and silu over packed sequences, continuing each one's window.

    y[i] = silu(bias + Σ_j weight[j]·x[i − (k−1) + j]), where the k−1 inputs before a sequence's
    first token of this call are its conv_state.

    Args:
        x: (t, d).  weight: (k, d).  bias: (d,) or None.
        conv_states: (s, k−1, d); rows in `slots` end as the last k−1 inputs of their sequence.
        slots: (q,) int64, distinct except for 0, the scratch slot.
        query_starts: (q+1,) int64; sequence i owns tokens query_starts[i] to query_starts[i+1].

    Returns:
        (t, d) in x's dtype; of tokens that no sequence owns, anything.
    """
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    starts = query_starts.tolist()
    for slot, start, end in zip(slots.tolist(), starts[:-1], starts[1:], strict=True):
        y[start:end] = _conv_sequence(x[start:end], weight, bias, conv_states[slot])
    return y


def _conv_sequence(x: Tensor, weight: Tensor, bias: Tensor | None, conv_state: Tensor) -> Tensor:
    """One sequence of `conv_prefill`; conv_state (k−1, d) is overwritten."""
    num_tokens, width = x.shape[0], weight.shape[0]
    window = torch.cat([conv_state.to(x.dtype), x])
    y = window[:num_tokens] * weight[0].float()
    for j in range(1, width):
        y.addcmul_(window[j : j + num_tokens].float(), weight[j].float())
    if bias is not None:
        y.add_(bias)
    conv_state.copy_(window[num_tokens:])
    return F.silu(y, inplace=True).to(x.dtype)


def conv_step(
    x: Tensor, weight: Tensor, bias: Tensor | None, conv_states: Tensor, slots: Tensor
) -> Tensor:
    """`conv_prefill` for one token of each row.

    Args:
        x: (b, d).  weight: (k, d).  bias: (d,) or None.
        conv_states: (s, k−1, d); only the rows in `slots` change.
        slots: (b,) int64, distinct except for 0, the scratch slot that padding rows share.

    Returns:
        (b, d) in x's dtype.
    """
    window = torch.cat([conv_states[slots], x.unsqueeze(1).to(conv_states.dtype)], dim=1)
    conv_states[slots] = window[:, 1:]
    y = (window.float() * weight.float()).sum(1)
    if bias is not None:
        y.add_(bias)
    return F.silu(y, inplace=True).to(x.dtype)


def scan_prefill(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    ssm_states: Tensor,
    slots: Tensor,
    query_starts: Tensor,
) -> Tensor:
    """The selective scan over packed sequences, continuing each one's state.

    Δ = softplus(dt + dt_bias);  h ← exp(Δ·A)·h + Δ·B·x;  y = (C·h + D·x)·silu(z)
    (Mamba, arXiv 2312.00752, algorithm 2.)

    Args:
        x, dt, z: (t, d), x after the convolution, dt before softplus; z may be a view with a
            larger row stride.
        A: (n, d) fp32, negative.  D, dt_bias: (d,) fp32.
        B, C: (t, n), already normalised.
        ssm_states: (s, n, d) fp32; rows in `slots` go from before the first token to after the
        last. slots: (q,) int64, distinct except for 0, the scratch slot. query_starts: (q+1,)
        int64; sequence i owns tokens query_starts[i] to query_starts[i+1].

    Returns:
        (t, d) in x's dtype; of tokens that no sequence owns, anything.
    """
    y = torch.empty_like(x)
    starts = query_starts.tolist()
    for slot, start, end in zip(slots.tolist(), starts[:-1], starts[1:], strict=True):
        for low in range(start, end, SCAN_TILE):
            tile = slice(low, min(low + SCAN_TILE, end))
            y[tile] = _scan_tile(
                x[tile], dt[tile], A, B[tile], C[tile], D, z[tile], dt_bias, ssm_states[slot]
            )
    return y


def _scan_tile(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    ssm_state: Tensor,
) -> Tensor:
    """Up to SCAN_TILE tokens of one sequence; ssm_state (n, d) is advanced in place."""
    x = x.float()
    delta = F.softplus(dt.float() + dt_bias)
    decay = (delta.unsqueeze(1) * A).exp_()  # (t, n, d)
    states = (delta * x).unsqueeze(1) * B.float().unsqueeze(
        2
    )  # inputs at first, states after the loop
    previous = ssm_state
    for decay_t, state_t in zip(decay.unbind(), states.unbind(), strict=True):
        previous = torch.addcmul(state_t, decay_t, previous, out=state_t)
    ssm_state.copy_(previous)
    y = torch.bmm(C.float().unsqueeze(1), states).squeeze(1)
    return y.addcmul_(x, D).mul_(F.silu(z.float()))


def scan_step(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    ssm_states: Tensor,
    slots: Tensor,
) -> Tensor:
    """`scan_prefill` for one token of each row.

    Args:
        x, dt, z: (b, d).  B, C: (b, n).  A, D, dt_bias as there.
        ssm_states: (s, n, d) fp32; only the rows in `slots` change.
        slots: (b,) int64, distinct except for 0, the scratch slot that padding rows share.

    Returns:
        (b, d) in x's dtype.
    """
    dtype, x = x.dtype, x.float()
    delta = F.softplus(dt.float() + dt_bias)
    decay = (delta.unsqueeze(1) * A).exp_()  # (b, n, d)
    states = (delta * x).unsqueeze(1) * B.float().unsqueeze(2)
    states.addcmul_(decay, ssm_states[slots])
    ssm_states[slots] = states
    y = torch.bmm(C.float().unsqueeze(1), states).squeeze(1)
    return y.addcmul_(x, D).mul_(F.silu(z.float())).to(dtype)


REFERENCE = Ops(
    name="reference",
    rms_norm=rms_norm,
    conv_prefill=conv_prefill,
    conv_step=conv_step,
    scan_prefill=scan_prefill,
    scan_step=scan_step,
)
