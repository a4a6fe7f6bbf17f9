"""mamba-ssm's and causal-conv1d's kernels in place of ours, where they are right.

    pip install --no-build-isolation causal-conv1d mamba-ssm

mamba-ssm's scan starts from an empty state and knows no other: it reads a sequence's first chunk,
and our own scan the later ones. Whether a state is empty only the device knows, so reading a prompt
waits for it, once a layer. Convolution and steps continue states in place as ours do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from falcon_mamba_app.ops import Ops

# Their convolution reads rows of channels in pieces of 16 bytes.
CHANNEL_MULTIPLE, WIDTHS = 8, range(2, 5)


def library_ops(base: Ops) -> Ops:
    """The libraries' operations, and those of `base` for all the rest.

    Raises ImportError where a library, or the CUDA half of one, is missing.
    """
    import causal_conv1d
    import selective_scan_cuda  # noqa: F401  mamba-ssm can be there without it, and fail later
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update

    theirs = _Library(
        base,
        conv=causal_conv1d.causal_conv1d_fn,
        conv_update=causal_conv1d.causal_conv1d_update,
        scan=selective_scan_fn,
        state_update=selective_state_update,
    )
    rest = {field.name: getattr(base, field.name) for field in fields(Ops)}
    return type(base)(
        **rest
        | {
            "name": "library",
            "conv_prefill": theirs.conv_prefill,
            "conv_step": theirs.conv_step,
            "scan_prefill": theirs.scan_prefill,
            "scan_step": theirs.scan_step,
            "can_capture_prompts": False,
            "fuses_steps": False,
        }
    )


class _Library:
    """Their four functions under our contract; where they cannot serve, `base` does."""

    def __init__(
        self,
        base: Ops,
        *,
        conv: Callable[..., Any],
        conv_update: Callable[..., Any],
        scan: Callable[..., Any],
        state_update: Callable[..., Any],
    ) -> None:
        self._base = base
        self._conv, self._conv_update = conv, conv_update
        self._scan, self._state_update = scan, state_update

    def conv_prefill(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        conv_states: Tensor,
        slots: Tensor,
        query_starts: Tensor,
    ) -> Tensor:
        """`reference.conv_prefill`, a call for each sequence."""
        if not _conv_takes(x, weight):
            return self._base.conv_prefill(x, weight, bias, conv_states, slots, query_starts)
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        weight = weight.T.contiguous()
        for slot, start, end in _sequences(slots, query_starts):
            window = conv_states[slot].T.unsqueeze(0)  # (1, d, k−1), as x one channel after another
            new, last = self._conv(
                x[start:end].T.unsqueeze(0),
                weight,
                bias,
                initial_states=window.to(x.dtype),
                return_final_states=True,
                activation="silu",
            )
            y[start:end] = new.squeeze(0).T
            window.copy_(last)
        return y

    def conv_step(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, conv_states: Tensor, slots: Tensor
    ) -> Tensor:
        """`reference.conv_step`."""
        if not _conv_takes(x, weight):
            return self._base.conv_step(x, weight, bias, conv_states, slots)
        y: Tensor = self._conv_update(
            x,
            conv_states.transpose(1, 2),
            weight.T.contiguous(),
            bias,
            activation="silu",
            conv_state_indices=slots.int(),
        )
        return y

    def scan_prefill(
        self,
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
        """`reference.scan_prefill`: theirs for empty states, `base` for all others."""
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        is_empty = (ssm_states[slots] == 0).flatten(1).all(1).tolist()
        for empty, (slot, start, end) in zip(
            is_empty, _sequences(slots, query_starts), strict=True
        ):
            rows = slice(start, end)
            of_tokens = (x[rows], dt[rows], A, B[rows], C[rows], D, z[rows], dt_bias)
            if empty:
                y[rows] = self._scan_from_nothing(*of_tokens, ssm_states[slot])
            else:
                ends = torch.tensor([0, end - start], device=x.device)
                one = torch.tensor([slot], device=x.device)
                y[rows] = self._base.scan_prefill(*of_tokens, ssm_states, one, ends)
        return y

    def _scan_from_nothing(
        self,
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
        """One sequence, (t, d) → (t, d); ssm_state (n, d) becomes the state after it."""
        x, dt, z, B, C = (part.T.unsqueeze(0).contiguous() for part in (x, dt, z, B, C))
        y, last = self._scan(
            x,
            dt,
            A.T.contiguous(),
            B,
            C,
            D,
            z,
            delta_bias=dt_bias,
            delta_softplus=True,
            return_last_state=True,
        )
        ssm_state.copy_(last.squeeze(0).T)
        return y.squeeze(0).T

    def scan_step(
        self,
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
        """`reference.scan_step`."""
        y: Tensor = self._state_update(
            ssm_states.transpose(1, 2),
            x,
            dt,
            A.T,
            B,
            C,
            D,
            z=z,
            dt_bias=dt_bias,
            dt_softplus=True,
            state_batch_indices=slots.int(),
        )
        return y


def _conv_takes(x: Tensor, weight: Tensor) -> bool:
    is_wide = x.shape[1] % CHANNEL_MULTIPLE == 0 and x.stride(0) % CHANNEL_MULTIPLE == 0
    return is_wide and weight.shape[0] in WIDTHS


def _sequences(slots: Tensor, query_starts: Tensor) -> list[tuple[int, int, int]]:
    """Slot, first token and end of each sequence, on the host. None is without tokens: those are
    padding of captured passes, which these operations never see.
    """
    starts = query_starts.tolist()
    return list(zip(slots.tolist(), starts[:-1], starts[1:], strict=True))
