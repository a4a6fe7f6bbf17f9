"""What a pass of the model reads, and what a draft leaves of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class LayerInputs(NamedTuple):
    """What one layer's convolution and scan have read: each (t, d) or (t, n), as in `Ops`."""

    projected: Tensor
    convolved: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    z: Tensor

    def first(self, num_tokens: int) -> LayerInputs:
        return LayerInputs(*(part[:num_tokens] for part in self))


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed tokens and the sequences they belong to, on the model's device.

    token_ids: (b + t,) int64.  slots: (b + q,) int64.
    The first b sequences, rows of a decode step, have one token each. After them come q prompts.
    query_starts: (q+1,) int64, the start of each prompt's tokens, the first at 0; None without
    prompts. Tokens after the last prompt are padding, and their results have no meaning.
    draft: None, or a list that gets the inputs of each layer. The one prompt is then a draft of a
    reply: each of its tokens gets exactly the numbers that a decode step would give it.
    steps: None, or a list that gets the mean of each layer's Δ over the prompts' tokens, (d,) fp32.
    """

    token_ids: Tensor
    slots: Tensor
    query_starts: Tensor | None = None
    draft: list[LayerInputs] | None = None
    steps: list[Tensor] | None = None

    @property
    def is_step(self) -> bool:
        """Whether there are only rows."""
        return self.query_starts is None

    @property
    def num_rows(self) -> int:
        num_prompts = 0 if self.query_starts is None else len(self.query_starts) - 1
        return len(self.slots) - num_prompts

    def parts(self) -> list[tuple[slice, Tensor, Tensor | None]]:
        """The rows and the prompts, each if present: their tokens, slots and query_starts."""
        b = self.num_rows
        parts: list[tuple[slice, Tensor, Tensor | None]] = []
        if b:
            parts.append((slice(b), self.slots[:b], None))
        if self.query_starts is not None:
            parts.append((slice(b, None), self.slots[b:], self.query_starts))
        return parts

    def behind_rows(self, rows: Batch) -> Batch:
        """A batch of a step's rows followed by these prompts."""
        assert self.query_starts is not None and rows.is_step
        token_ids = torch.cat([rows.token_ids, self.token_ids])
        return Batch(token_ids, torch.cat([rows.slots, self.slots]), self.query_starts)
