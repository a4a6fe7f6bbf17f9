"""Carries a row's token from one decode step to the next without the host, in plain torch.

A step is launched before the host has read the previous one. So the device stores for each slot the
last sampled token, and whether that token ended the reply. If so, the row continues in the scratch
slot, where its surplus steps change no sequence's state.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Stands for a token that so far only the device knows.
ON_DEVICE = -1


def next_inputs(inputs: Tensor, last_tokens: Tensor) -> Tensor:
    """`Ops.next_inputs`."""
    tokens_and_slots = inputs[:2].long()
    tokens, slots = tokens_and_slots
    return torch.where(tokens == ON_DEVICE, last_tokens[:, slots], tokens_and_slots)


def remember_tokens(
    sampled: Tensor, inputs: Tensor, *, live_slots: Tensor, is_eos: Tensor, last_tokens: Tensor
) -> Tensor:
    """`Ops.remember_tokens`."""
    tokens = sampled.clamp(0, len(is_eos) - 1)
    slots, slots_after_eos = inputs[1:].long()
    live_slots = torch.where(is_eos[tokens], slots_after_eos, live_slots)
    last_tokens[:, slots] = torch.stack([tokens, live_slots])
    return sampled
