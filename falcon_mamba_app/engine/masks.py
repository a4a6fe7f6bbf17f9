"""The tokens that the rows of a step may choose, as bits for `Ops.allow_only`."""

from __future__ import annotations

import torch
from torch import Tensor

from falcon_mamba_app.engine.events import EngineEvent
from falcon_mamba_app.engine.sequence import Sequence, Status
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.ops.reference.allowed_tokens import BITS

ALL = -1  # a word with every bit set


class TokenMasks:
    """One step's masks. Each row may choose any token until `limit` is called for it.

    words: (b, ⌈v/32⌉) int32 in host memory.
    """

    def __init__(self, rows: list[Sequence], config: ModelConfig) -> None:
        self._rows = rows
        self.words: Tensor = torch.full(
            (len(rows), -(-config.vocab_size // BITS)), ALL, dtype=torch.int32
        )

    @property
    def limited(self) -> list[Sequence]:
        """The rows that have a matcher, without those that have finished since the launch."""
        return [
            seq
            for seq in self._rows
            if seq.matcher is not None and seq.status is not Status.FINISHED
        ]

    def limit(self, seq: Sequence) -> list[EngineEvent]:
        """Allow the row only what its matcher allows, without any event."""
        assert seq.matcher is not None, f"{seq.seq_id=} is not limited"
        allowed = torch.frombuffer(bytearray(seq.matcher.allowed()), dtype=torch.int32)
        self.words[self._rows.index(seq)] = allowed[: self.words.shape[1]]
        return []
