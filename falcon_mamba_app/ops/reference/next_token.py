"""A row's token, handed from one decode step to the next without the host, in plain torch.

A step is launched before the host has read the one ahead of it. So the device keeps for each slot
what was sampled there last, and whether that ended the reply: then the row goes on in the scratch
slot, where its steps launched too many move nobody's state.
"""

from __future__ import annotations

import torch
from torch import Tensor

# In place of a token that only the device knows so far.
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
