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


def feed(given: Tensor, carried: Tensor) -> Tensor:
    """What each row of a step reads.

    Args:
        given: (3, b) fp32, whole numbers from the host: the token or ON_DEVICE, the row's slot, and
            the slot in which it goes on once it has sampled an end-of-sequence.
        carried: (2, s) int64, by slot: the token sampled last, and where the row goes on.

    Returns:
        (2, b) int64: the token to feed and the slot to advance.
    """
    inputs = given[:2].long()
    return torch.where(inputs[0] == ON_DEVICE, carried[:, inputs[1]], inputs)


def hand_on(
    sampled: Tensor, given: Tensor, live_slots: Tensor, is_eos: Tensor, carried: Tensor
) -> Tensor:
    """Leave what the rows have sampled for the next step to find.

    Args:
        sampled: (b,) int64.  given, carried: as in `feed`; carried changes at the rows' slots.
        live_slots: (b,) int64, what `feed` returned.  is_eos: (v,) bool.

    Returns:
        (b,) int64, the tokens as they were sampled. What is carried lies inside the vocabulary,
        even where there was none: a row's steps launched too many must not read beyond it.
    """
    tokens = sampled.clamp(0, len(is_eos) - 1)
    slots, slots_after_eos = given[1:].long()
    live_slots = torch.where(is_eos[tokens], slots_after_eos, live_slots)
    carried[:, slots] = torch.stack([tokens, live_slots])
    return sampled
