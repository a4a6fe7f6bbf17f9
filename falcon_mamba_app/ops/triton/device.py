"""What the GPU at hand can do, as far as the choice of kernels and tiles depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True, slots=True)
class Card:
    capability: tuple[int, int]
    shared_bytes: int  # that one program can have

    @property
    def can_overlap(self) -> bool:
        """Whether a kernel can start while the one ahead of it ends: Hopper and later."""
        return self.capability >= (9, 0)

    @property
    def can_multiply_tiles(self) -> bool:
        """Whether Triton uses the card's matrix units; on Turing it keeps tiles in registers, which
        they overflow by kilobytes.
        """
        return self.capability >= (8, 0)


# What the interpreter stands for.
H100 = Card((9, 0), 232_448)


@cache
def card() -> Card:
    """The current one."""
    if not torch.cuda.is_available():
        return H100
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    shared_bytes = found.shared_memory_per_block_optin  # type: ignore[attr-defined]
    return Card((found.major, found.minor), shared_bytes)
