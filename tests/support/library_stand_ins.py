"""mamba-ssm's and causal-conv1d's functions in plain torch, with their signatures and limits.

Neither package installs without a CUDA compiler. What matters of them is here: how arguments are
laid out, that the scan starts from nothing, that states are updated in place, and what they refuse.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F


def causal_conv1d_fn(
    x: Any,
    weight: Any,
    bias: Any = None,
    seq_idx: Any = None,
    initial_states: Any = None,
    return_final_states: Any = False,
    final_states_out: Any = None,
    activation: Any = None,
) -> Any:
    """x (b, d, t), weight (d, k), initial_states (b, d, k−1) → y, and the last k−1 inputs."""
    assert activation in (None, "silu", "swish") and seq_idx is None
    dim, width = weight.shape
    assert x.stride(1) == 1 and dim % 8 == 0 and x.stride(2) % 8 == 0, "channels last, by eights"
    assert 2 <= width <= 4 and weight.dtype == x.dtype
    if initial_states is None:
        initial_states = x.new_zeros(len(x), dim, width - 1)
    assert initial_states.stride(1) == 1 and initial_states.dtype == x.dtype
    window = torch.cat([initial_states, x], dim=-1)
    y = F.conv1d(window, weight.unsqueeze(1), bias, groups=dim)
    y = F.silu(y) if activation else y
    return (y, window[..., 1 - width :]) if return_final_states else y


def causal_conv1d_update(
    x: Any,
    conv_state: Any,
    weight: Any,
    bias: Any = None,
    activation: Any = None,
    cache_seqlens: Any = None,
    conv_state_indices: Any = None,
) -> Any:
    """x (b, d), conv_state (s, d, k−1): its rows `conv_state_indices` are shifted in place."""
    assert cache_seqlens is None and conv_state_indices.dtype == torch.int32
    rows = conv_state_indices.long()
    window = torch.cat([conv_state[rows], x.unsqueeze(-1)], dim=-1)
    conv_state[rows] = window[..., 1:]
    y = (window * weight).sum(-1)
    y = y if bias is None else y + bias
    return F.silu(y) if activation in ("silu", "swish") else y


def selective_scan_fn(
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any = None,
    z: Any = None,
    delta_bias: Any = None,
    delta_softplus: Any = False,
    return_last_state: Any = False,
) -> Any:
    """u, delta, z (b, d, t), A (d, n), B and C (b, n, t) → y and the state (b, d, n) after it."""
    delta = delta.float() + delta_bias[:, None]
    delta = F.softplus(delta) if delta_softplus else delta
    state, outputs = u.new_zeros(*A.shape, dtype=torch.float32).unsqueeze(0), []
    for t in range(u.shape[-1]):
        state = torch.exp(delta[..., t, None] * A) * state
        state = state + (delta[..., t] * u[..., t]).unsqueeze(-1) * B[..., t].unsqueeze(1)
        outputs.append((state * C[..., t].unsqueeze(1)).sum(-1))
    y = (torch.stack(outputs, dim=-1) + u * D[:, None]) * F.silu(z.float())
    return (y.to(u.dtype), state) if return_last_state else y.to(u.dtype)


def selective_state_update(
    state: Any,
    x: Any,
    dt: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any = None,
    z: Any = None,
    dt_bias: Any = None,
    dt_softplus: Any = False,
    state_batch_indices: Any = None,
) -> Any:
    """state (s, d, n): its rows `state_batch_indices` advance in place; the rest is (b, …)."""
    assert state.shape[1:] == A.shape
    rows = state_batch_indices.long()
    dt = dt.float() + dt_bias
    dt = F.softplus(dt) if dt_softplus else dt
    new = torch.exp(dt.unsqueeze(-1) * A) * state[rows]
    new = new + (dt * x).unsqueeze(-1) * B.float().unsqueeze(1)
    state[rows] = new
    y = (new * C.float().unsqueeze(1)).sum(-1) + D * x
    return (y * F.silu(z.float())).to(x.dtype)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have imports of the libraries find these functions."""
    modules: dict[str, dict[str, Any]] = {
        "causal_conv1d": {
            "causal_conv1d_fn": causal_conv1d_fn,
            "causal_conv1d_update": causal_conv1d_update,
        },
        "selective_scan_cuda": {},
        "mamba_ssm": {},
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.selective_scan_interface": {"selective_scan_fn": selective_scan_fn},
        "mamba_ssm.ops.triton": {},
        "mamba_ssm.ops.triton.selective_state_update": {
            "selective_state_update": selective_state_update
        },
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
