"""Batches drawn from the streams, by shares that change while the training goes on.

At first some plain text, for the language; then ever more conversations, for what is to be said.
A run from scratch wants a fifth of plain text at its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.rows import FULL, Encoder
from training.streams import FileRows, FreshConversations, human_rows, plain_rows

# Shares of rows at points of the run: (progress, conversations made, written by people, plain).
SHARES = (
    (0.0, 0.88, 0.06, 0.06),
    (0.3, 0.92, 0.05, 0.03),
    (1.0, 0.96, 0.03, 0.01),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """inputs, targets: (b, t) int64.  weights: (b, t) fp32, how much each target counts."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(self.inputs.to(device), self.targets.to(device), self.weights.to(device))


def to_batch(tokens: np.ndarray, weights: np.ndarray, device: torch.device) -> Batch:
    """Rows (b, t + 1) as what is read and what is to be said."""
    ids = _send(torch.from_numpy(tokens.astype(np.int32)), device).long()
    counts = _send(torch.from_numpy(weights[:, 1:].copy()), device)
    return Batch(ids[:, :-1], ids[:, 1:], counts.float() / FULL)


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Without waiting for what the GPU is doing, which only pinned memory allows."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def shares_at(progress: float) -> np.ndarray:
    """The shares of the three streams, between the given points."""
    points = np.array(SHARES)
    shares = np.array([np.interp(progress, points[:, 0], points[:, i]) for i in (1, 2, 3)])
    scaled: np.ndarray = shares / shares.sum()
    return scaled


class Mixture:
    """Batches of one process of several; each reads its own part of the files and its own seed."""

    def __init__(
        self,
        data: Path,
        *,
        seed: int,
        length: int,
        num_workers: int,
        rank: int = 0,
        num_ranks: int = 1,
        first_shard: int = 0,
        state: dict[str, Any] | None = None,
    ) -> None:
        tokenizer_file = data / "tokenizer.json"
        encoder = Encoder(tokenizer_file)
        shard = state["fresh"]["shard"] if state else first_shard
        own_seed = seed * 1_000 + rank
        fresh = FreshConversations(
            tokenizer_file, seed=own_seed, length=length, num_workers=num_workers, shard=shard
        )
        part = {"part": rank, "num_parts": num_ranks}
        human = FileRows(human_rows(data, encoder, length, **part), seed=own_seed)
        plain = FileRows(plain_rows(data, length, **part), seed=own_seed + 1)
        self._fresh, self._human, self._plain = fresh, human, plain
        self._rng = np.random.default_rng([own_seed, 7])
        if state:
            self._restore(state)

    def batch(self, num_rows: int, progress: float, device: torch.device) -> Batch:
        streams = (self._fresh, self._human, self._plain)
        picks = self._rng.choice(3, size=num_rows, p=shares_at(progress))
        taken = [streams[pick].take() for pick in picks]
        return to_batch(np.stack([t for t, _ in taken]), np.stack([w for _, w in taken]), device)

    def state(self) -> dict[str, Any]:
        return {
            "fresh": self._fresh.state(),
            "human": self._human.taken,
            "plain": self._plain.taken,
            "rng": self._rng.bit_generator.state,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._fresh.restore(state["fresh"])
        self._human.taken, self._plain.taken = state["human"], state["plain"]
        self._rng.bit_generator.state = state["rng"]

    def close(self) -> None:
        self._fresh.close()
