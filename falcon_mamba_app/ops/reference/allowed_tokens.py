"""Excludes tokens from the choice by a mask of bits, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 32  # of a word of the mask


def allow_only(logits: Tensor, allowed: Tensor) -> None:
    """`Ops.allow_only`."""
    places = torch.arange(BITS, dtype=torch.int32, device=allowed.device)
    bits = (allowed.unsqueeze(-1) >> places) & 1
    is_excluded = bits.flatten(1)[:, : logits.shape[1]] == 0
    excluded = torch.zeros_like(logits).masked_fill_(is_excluded, torch.inf)
    logits.sub_(excluded)  # infinity − infinity is NaN, and so is NaN − infinity
