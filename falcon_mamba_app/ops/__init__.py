"""The recurrence as five operations, and the matrix products, whoever implements them.

This package is the only code that knows kernels. Everybody else receives an `Ops` record, chosen
once by `select.select_ops`, and calls it. Letters as in `model/config.py`: b rows, t packed tokens,
q sequences, d channels, n states per channel, k convolution width, s slots.

The state of all sequences lives in tensors of s rows; an operation reads and writes the rows named
by `slots` in place and no others. Channels are the innermost dimension everywhere, so that a row of
channels is one contiguous run for a CPU's vectors and a GPU's warps alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_mamba_app.ops.reference.next_token import feed, hand_on
from falcon_mamba_app.ops.reference.sampling import sample
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit, dequantize


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """One implementation of each operation. `reference.py` states the contract of every field.

    linear(x, weight, bias), as F.linear for two dimensions
    rms_norm(x, weight, eps, out_dtype)
    conv_prefill(x, weight, bias, conv_states, slots, query_starts)
    conv_step(x, weight, bias, conv_states, slots)
    scan_prefill(x, dt, A, B, C, D, z, dt_bias, ssm_states, slots, query_starts)
    scan_step(x, dt, A, B, C, D, z, dt_bias, ssm_states, slots)
    sample(logits, params), stated in `sampling.py`
    dequantize(weight, dtype), stated in `weight_4bit.py`
    feed(given, carried), hand_on(sampled, given, live_slots, is_eos, carried), in `carry.py`

    The methods are composed of these; an implementation may do better by overriding them.
    """

    name: str  # for the log, the panel and /v1/models
    rms_norm: Callable[..., Tensor]
    conv_prefill: Callable[..., Tensor]
    conv_step: Callable[..., Tensor]
    scan_prefill: Callable[..., Tensor]
    scan_step: Callable[..., Tensor]
    linear: Callable[..., Tensor] = F.linear
    linear_step: Callable[..., Tensor] | None = None  # of a decode step; None: as any other
    sample: Callable[..., Tensor] = sample
    dequantize: Callable[..., Tensor] = dequantize
    feed: Callable[..., Tensor] = feed
    hand_on: Callable[..., Tensor] = hand_on
    # Whether a step, and the reading of prompts, never wait for the device. Only then can they be
    # captured in a CUDA graph.
    can_capture_steps: bool = False
    can_capture_prompts: bool = False
    # Whether the two `projected_…_step` may stand in for conv_step and scan_step.
    fuses_steps: bool = True

    def linear_for(self, *, is_step: bool) -> Callable[..., Tensor]:
        """The product for the rows of a decode step, or for tokens of prompts."""
        return self.linear_step if is_step and self.linear_step else self.linear

    def linear_addends(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *, is_step: bool
    ) -> Tensor:
        """(a, t, o), x's dtype or fp32, whose sum over a is linear(x, weight, bias).

        For the two norms below, which take the sum as they read: where a product is computed in
        shares, no pass of its own is spent on adding them up.
        """
        return self.linear_for(is_step=is_step)(x, weight, bias).unsqueeze(0)

    def linear_4bit(
        self, x: Tensor, weight: Weight4bit, bias: Tensor | None, *, is_step: bool
    ) -> Tensor:
        """`linear` of a quantised matrix in its compute dtype, in x's dtype again."""
        dtype = weight.compute_dtype
        dense = self.dequantize(weight, dtype)
        bias = None if bias is None else bias.to(dtype)
        return self.linear_for(is_step=is_step)(x.to(dtype), dense, bias).to(x.dtype)

    def linear_4bit_addends(
        self, x: Tensor, weight: Weight4bit, bias: Tensor | None, *, is_step: bool
    ) -> Tensor:
        """`linear_addends` of a quantised matrix."""
        return self.linear_4bit(x, weight, bias, is_step=is_step).unsqueeze(0)

    def add_rms_norm(
        self, hidden: Tensor, addends: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """hidden (t, m) + the sum of addends (a, t, m), in hidden's dtype, and its rms_norm."""
        hidden = (hidden + total(addends)).to(hidden.dtype)
        return hidden, self.rms_norm(hidden, weight, eps, out_dtype)

    def split_rms_norm(
        self, addends: Tensor, sizes: list[int], eps: float, out_dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """The sum of addends (a, t, m) as three groups of columns, each normalised by itself."""
        groups = total(addends).split(sizes, dim=-1)
        return tuple(self.rms_norm(group, None, eps, out_dtype) for group in groups)

    def projected_conv_step(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        conv_weight: Tensor,
        conv_bias: Tensor | None,
        conv_states: Tensor,
        slots: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """conv_step of the first half of linear(x, weight, bias), and the second half as it is."""
        x, z = self.linear_for(is_step=True)(x, weight, bias).chunk(2, dim=-1)
        return self.conv_step(x, conv_weight, conv_bias, conv_states, slots), z

    def projected_scan_step(
        self,
        x: Tensor,
        addends: Tensor,
        sizes: list[int],
        eps: float,
        dt_weight: Tensor,
        A: Tensor,
        D: Tensor,
        z: Tensor,
        dt_bias: Tensor,
        ssm_states: Tensor,
        slots: Tensor,
    ) -> Tensor:
        """scan_step of what x_proj gave, addends (a, b, r + 2·n): dt, B and C are normalised, and
        dt multiplied by dt_weight (d, r).
        """
        dt, B, C = self.split_rms_norm(addends, sizes, eps, x.dtype)
        dt = self.linear_for(is_step=True)(dt, dt_weight, None)
        return self.scan_step(x, dt, A, B, C, D, z, dt_bias, ssm_states, slots)


def total(addends: Tensor) -> Tensor:
    """(a, t, m) → (t, m), the sum over a; one addend is its own."""
    return addends[0] if len(addends) == 1 else addends.sum(0)
