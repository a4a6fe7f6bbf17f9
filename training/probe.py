"""Looks at the model while it trains: the loss on held-out replies, and what it still remembers.

The probe for memory puts the held-out questions with the beginning of an answer, and asks whether
the told word is what the model would go on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training import held_out
from training.generator import conversations
from training.mixture import Batch, to_batch
from training.rows import END_OF_TEXT, PAD, Encoder, Rows, pack, render

LEAD_IN = ("It", "is")  # one token each; the told word and "." follow
MIN_LENGTH = 1_024  # of a row that holds every held-out conversation, twenty turns

Forward = Callable[[Tensor], Tensor]


def reply_batches(
    path: Path, encoder: Encoder, *, length: int, num_rows: int, rows_at_once: int
) -> list[Batch]:
    """The replies of conversations that are not trained on; nothing else counts."""
    lines = path.read_text(encoding="utf-8").splitlines()
    ids = encoder.encode([render(json.loads(line)["messages"]) for line in lines])
    weighted = ((each, encoder.conversation_weights(each, listening=0)) for each in ids)
    rows = pack(weighted, length)
    count = min(len(rows), num_rows)
    size = min(rows_at_once, count)
    # Full batches only: kernels compiled for one shape serve all.
    starts = range(0, count - size + 1, size)
    return [_slice(rows, i, i + size) for i in starts]


def _slice(rows: Rows, start: int, end: int) -> Batch:
    return to_batch(rows.tokens[start:end], rows.weights[start:end], torch.device("cpu"))


@dataclass(frozen=True, slots=True)
class Probe:
    """Held-out questions of one distance; the weights mark the told word's tokens."""

    distance: int
    batches: list[Batch]

    def accuracy(self, forward: Forward, device: torch.device) -> float:
        """The share of questions in which every token of the word is the likeliest."""
        right = []
        for batch in (each.to(device) for each in self.batches):
            is_right = (forward(batch.inputs).argmax(-1) == batch.targets) | (batch.weights == 0)
            right.append(is_right.all(1).float().mean())
        return torch.stack(right).mean().item()


@dataclass(frozen=True, slots=True)
class ToldProbe:
    """Conversations as in training that nobody trains on; the weights mark what was told."""

    batch: Batch

    def accuracy(self, forward: Forward, device: torch.device) -> float:
        """The share of tokens of told words that are the likeliest in their place."""
        batch = self.batch.to(device)
        counts = batch.weights > 1.0
        is_right = (forward(batch.inputs).argmax(-1) == batch.targets) & counts
        return (is_right.sum() / counts.sum()).item()


def told_probe(encoder: Encoder, *, length: int, num_rows: int) -> ToldProbe:
    made = conversations("held out", 50 * num_rows)
    rows = pack(encoder.weighted(made), length)
    return ToldProbe(_slice(rows, 0, num_rows))


def recall_probes(
    encoder: Encoder, *, length: int, num_rows: int, rows_at_once: int
) -> list[Probe]:
    """One for each distance, a question in each of `num_rows` rows; none for rows too short."""
    if length < MIN_LENGTH:
        return []
    questions = held_out.recall_questions(-(-num_rows // len(held_out.KINDS)))
    starts = range(0, max(1, num_rows - rows_at_once + 1), rows_at_once)
    return [
        Probe(
            distance,
            [
                _rows(_spread(questions, distance)[i : i + rows_at_once], encoder, length)
                for i in starts
            ],
        )
        for distance in held_out.DISTANCES
    ]


def _spread(questions: list[held_out.Question], distance: int) -> list[held_out.Question]:
    """Those of the distance, all kinds in turn."""
    groups = [
        [question for question in questions if question.group == f"{kind} {distance}"]
        for kind in held_out.KINDS
    ]
    return [question for same_place in zip(*groups, strict=True) for question in same_place]


def _rows(questions: list[held_out.Question], encoder: Encoder, length: int) -> Batch:
    tokens = np.full((len(questions), length + 1), PAD, dtype=np.uint16)
    weights = np.zeros(tokens.shape, dtype=np.uint8)
    for i, question in enumerate(questions):
        reply = held_out.assistant(f"{' '.join(LEAD_IN)} {question.expected}.")
        (ids,) = encoder.encode([render([*question.messages, reply])])
        assert len(ids) <= length and ids[-1] == END_OF_TEXT, f"{len(ids)=}"
        (said,) = np.nonzero(encoder.conversation_weights(ids, listening=0))
        start = (
            said[np.flatnonzero(np.diff(said) > 1)[-1] + 1]
            if (np.diff(said) > 1).any()
            else said[0]
        )
        # Between the lead-in and the full stop, the end of the turn.
        word = slice(start + len(LEAD_IN), said[-1] - 1)
        tokens[i, : len(ids)] = ids
        weights[i, word] = 1
    return to_batch(tokens, weights, torch.device("cpu"))
