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

import torch.nn.functional as F
from torch import Tensor

from falcon_mamba_app.ops.sampling import sample


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
    """

    name: str  # for the log, the panel and /v1/models
    rms_norm: Callable[..., Tensor]
    conv_prefill: Callable[..., Tensor]
    conv_step: Callable[..., Tensor]
    scan_prefill: Callable[..., Tensor]
    scan_step: Callable[..., Tensor]
    linear: Callable[..., Tensor] = F.linear
    sample: Callable[..., Tensor] = sample
