"""mamba-ssm's and causal-conv1d's kernels in place of ours, where they are correct.

    pip install --no-build-isolation causal-conv1d mamba-ssm

mamba-ssm's scan can only start from an empty state: it reads a sequence's first chunk, and our own
scan reads the later ones. Only the device knows whether a state is empty, so the reading of a
prompt waits for the device once per layer. Convolution and steps continue states in place, as ours
do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from falcon_mamba_app.ops import ConvWeights, Ops, ScanWeights
from falcon_mamba_app.ops.triton.ops import TritonOps

# The library's convolution reads rows of channels 16 bytes at a time.
CHANNEL_MULTIPLE, WIDTHS = 8, range(2, 5)


class MambaSsmOps(TritonOps):
    """The libraries' four functions under our contract; our kernels for all other operations."""

    name = "library"
    can_capture_prompts = False

    def __init__(self) -> None:
        """Raises ImportError where a library, or the CUDA part of one, is missing."""
        import causal_conv1d
        import selective_scan_cuda  # noqa: F401  mamba-ssm can be there without it, and fail later
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update

        self._conv = causal_conv1d.causal_conv1d_fn
        self._conv_update = causal_conv1d.causal_conv1d_update
        self._scan = selective_scan_fn
        self._state_update = selective_state_update

    def conv_prefill(
        self,
        x: Tensor,
        weights: ConvWeights,
        *,
        conv_states: Tensor,
        slots: Tensor,
        query_starts: Tensor,
    ) -> Tensor:
        """One call per sequence."""
        if not _conv_takes(x, weights.weight):
            return super().conv_prefill(
                x, weights, conv_states=conv_states, slots=slots, query_starts=query_starts
            )
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        weight = weights.weight.T.contiguous()
        for slot, start, end in _sequences(slots, query_starts):
            window = conv_states[slot].T.unsqueeze(0)  # (1, d, k−1), as x one channel after another
            new, last = self._conv(
                x[start:end].T.unsqueeze(0),
                weight,
                weights.bias,
                initial_states=window.to(x.dtype),
                return_final_states=True,
                activation="silu",
            )
            y[start:end] = new.squeeze(0).T
            window.copy_(last)
        return y

    def conv_step(
        self, x: Tensor, weights: ConvWeights, *, conv_states: Tensor, slots: Tensor
    ) -> Tensor:
        if not _conv_takes(x, weights.weight):
            return super().conv_step(x, weights, conv_states=conv_states, slots=slots)
        y: Tensor = self._conv_update(
            x,
            conv_states.transpose(1, 2),
            weights.weight.T.contiguous(),
            weights.bias,
            activation="silu",
            conv_state_indices=slots.int(),
        )
        return y

    def scan_prefill(
        self,
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
        """The library's scan for sequences with an empty state, ours for all others."""
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        is_empty = (ssm_states[slots] == 0).flatten(1).all(1).tolist()
        for empty, (slot, start, end) in zip(
            is_empty, _sequences(slots, query_starts), strict=True
        ):
            part = slice(start, end)
            if empty:
                y[part] = self._scan_from_nothing(
                    x[part],
                    weights,
                    dt=dt[part],
                    B=B[part],
                    C=C[part],
                    z=z[part],
                    ssm_state=ssm_states[slot],
                )
            else:
                y[part] = super().scan_prefill(
                    x[part],
                    weights,
                    dt=dt[part],
                    B=B[part],
                    C=C[part],
                    z=z[part],
                    ssm_states=ssm_states,
                    slots=torch.tensor([slot], device=x.device),
                    query_starts=torch.tensor([0, end - start], device=x.device),
                )
        return y

    def _scan_from_nothing(
        self,
        x: Tensor,
        weights: ScanWeights,
        *,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        z: Tensor,
        ssm_state: Tensor,
    ) -> Tensor:
        """One sequence, (t, d) → (t, d); ssm_state (n, d) becomes the state after it."""
        x, dt, z, B, C = (part.T.unsqueeze(0).contiguous() for part in (x, dt, z, B, C))
        y, last = self._scan(
            x,
            dt,
            weights.A.T.contiguous(),
            B,
            C,
            weights.D,
            z,
            delta_bias=weights.dt_bias,
            delta_softplus=True,
            return_last_state=True,
        )
        ssm_state.copy_(last.squeeze(0).T)
        result: Tensor = y.squeeze(0).T
        return result

    def scan_step(
        self,
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
        y: Tensor = self._state_update(
            ssm_states.transpose(1, 2),
            x,
            dt,
            weights.A.T,
            B,
            C,
            weights.D,
            z=z,
            dt_bias=weights.dt_bias,
            dt_softplus=True,
            state_batch_indices=slots.int(),
        )
        return y

    # A step calls the libraries' functions one by one, not our fused kernels.
    projected_conv_step = Ops.projected_conv_step
    projected_scan_step = Ops.projected_scan_step


def _conv_takes(x: Tensor, weight: Tensor) -> bool:
    is_wide = x.shape[1] % CHANNEL_MULTIPLE == 0 and x.stride(0) % CHANNEL_MULTIPLE == 0
    return is_wide and weight.shape[0] in WIDTHS


def _sequences(slots: Tensor, query_starts: Tensor) -> list[tuple[int, int, int]]:
    """Slot, first token and end of each sequence, on the host. Every sequence has tokens: empty
    ones are padding of captured passes, which never reach these operations.
    """
    starts = query_starts.tolist()
    return list(zip(slots.tolist(), starts[:-1], starts[1:], strict=True))
