"""The features of the current GPU on which the choice of kernels and tiles depends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True, slots=True)
class Gpu:
    capability: tuple[int, int]
    shared_bytes: int  # the most that one program can have

    @property
    def can_overlap(self) -> bool:
        """Whether a kernel can start while the previous one ends: Hopper and later."""
        return self.capability >= (9, 0)

    @property
    def can_multiply_tiles(self) -> bool:
        """Whether Triton uses the matrix units. On Turing it keeps tiles in registers, and the
        tiles exceed them by kilobytes.
        """
        return self.capability >= (8, 0)


# Assumed by Triton's interpreter.
H100 = Gpu((9, 0), 232_448)


@cache
def current_gpu() -> Gpu:
    """The current GPU's limits."""
    if not torch.cuda.is_available():
        return H100
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    shared_bytes = found.shared_memory_per_block_optin  # type: ignore[attr-defined]
    return Gpu((found.major, found.minor), shared_bytes)
