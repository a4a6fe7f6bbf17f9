"""Every tensor of the engine and every launch: sequences in, sampled tokens out.

Anything that runs on the device runs from here, on the engine's thread. This module does not decide
who runs, nor when a sequence ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_mamba_app.engine.sampler import (
    SamplingBatch,
    TokenCounts,
    needs_counts,
    penalize,
    sample,
    uniform,
)
from falcon_mamba_app.engine.scheduler import PrefillChunk
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.state_pool import StatePool
from falcon_mamba_app.model.falcon_mamba import Batch, FalconMamba


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token's log-probability before any sampling parameter, and the likeliest ones beside it."""

    token_id: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class SampledToken:
    """What one decode step chose for one row; `score` is None unless the request asked for it."""

    token_id: int
    score: ScoredToken | None = None


class ModelRunner:
    """Runs the model over the slots of a StatePool."""

    def __init__(self, model: FalconMamba, pool: StatePool) -> None:
        self._model, self._pool = model, pool
        self._counts: dict[int, TokenCounts] = {}  # by seq_id, for sequences with penalties

    @torch.inference_mode()
    def prefill(self, chunks: list[PrefillChunk]) -> dict[int, list[ScoredToken]]:
        """Read the chunks, advancing their sequences' states.

        Returns:
            By seq_id, for sequences that score their prompt: the scores of tokens start+1 … end,
            each predicted by the token before it.
        """
        token_ids: list[int] = []
        query_starts = [0]
        for chunk in chunks:
            token_ids += chunk.seq.prompt_token_ids[chunk.start : chunk.end]
            query_starts.append(len(token_ids))
        slots = [chunk.seq.slot for chunk in chunks]
        hidden = self._model(
            Batch(self._tensor(token_ids), self._tensor(slots), self._tensor(query_starts)),
            self._pool.conv_states,
            self._pool.ssm_states,
        )
        return {
            chunk.seq.seq_id: self._score_prompt(
                chunk, hidden[start : start + chunk.end - chunk.start]
            )
            for chunk, start in zip(chunks, query_starts, strict=False)
            if chunk.seq.score_prompt is not None
        }

    @torch.inference_mode()
    def decode(self, rows: list[Sequence]) -> list[SampledToken]:
        """Feed each row its next token and sample the one after it."""
        batch = Batch(
            self._tensor([seq.next_token_id for seq in rows]),
            self._tensor([seq.slot for seq in rows]),
        )
        hidden = self._model(batch, self._pool.conv_states, self._pool.ssm_states)
        logits = self._model.logits(hidden)
        scores = [
            None if seq.sampling.logprobs is None else torch.log_softmax(logits[i], -1)
            for i, seq in enumerate(rows)
        ]
        self._penalize(logits, rows)
        sampling = SamplingBatch.of(
            [seq.sampling for seq in rows],
            [uniform(seq.seed, len(seq.output_token_ids)) for seq in rows],
            device=self._model.device,
        )
        token_ids = sample(logits, sampling).tolist()
        return [
            SampledToken(token_id, None if score is None else _score(score, token_id, seq))
            for seq, token_id, score in zip(rows, token_ids, scores, strict=True)
        ]

    def drop(self, seq: Sequence) -> None:
        """Forget what is kept beside the sequence's state."""
        self._counts.pop(seq.seq_id, None)

    def _penalize(self, logits: Tensor, rows: list[Sequence]) -> None:
        for i, seq in enumerate(rows):
            if needs_counts(seq.sampling):
                penalize(logits[i], seq.sampling, self._counts_of(seq))

    def _counts_of(self, seq: Sequence) -> TokenCounts:
        """The counts up to the sequence's last token; made at its first step, then kept up."""
        counts = self._counts.get(seq.seq_id)
        if counts is None:
            counts = self._counts[seq.seq_id] = TokenCounts(
                seq.prompt_token_ids,
                vocab_size=self._model.config.vocab_size,
                device=self._model.device,
            )
        counts.add(seq.output_token_ids[counts.num_output_tokens :])
        return counts

    def _score_prompt(self, chunk: PrefillChunk, hidden: Tensor) -> list[ScoredToken]:
        """Scores of the tokens that the chunk's tokens predict, a tile of logits at a time."""
        assert chunk.seq.score_prompt is not None
        predicted = chunk.seq.prompt_token_ids[chunk.start + 1 : chunk.end + 1]
        scores: list[ScoredToken] = []
        for tile in torch.split(hidden, SCORE_TILE):
            logprobs = torch.log_softmax(self._model.logits(tile), -1)
            token_ids = predicted[len(scores) : len(scores) + len(tile)]
            scores += _score_rows(logprobs, token_ids, chunk.seq.score_prompt)
        return scores

    def _tensor(self, values: list[int] | list[int | None]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._model.device)


# Prompt positions whose fp32 logits are in memory at once: 33 MB at a vocabulary of 65,024.
SCORE_TILE = 128


def _score(logprobs: Tensor, token_id: int, seq: Sequence) -> ScoredToken:
    assert seq.sampling.logprobs is not None
    return _score_rows(logprobs.unsqueeze(0), [token_id], seq.sampling.logprobs)[0]


def _score_rows(logprobs: Tensor, token_ids: list[int], num_top: int) -> list[ScoredToken]:
    """The scores of one token of each row of `logprobs` (t, v)."""
    index = torch.tensor(token_ids, device=logprobs.device).unsqueeze(1)
    chosen = logprobs.gather(1, index).squeeze(1).tolist()
    top = logprobs.topk(num_top, dim=-1)
    rows = zip(token_ids, chosen, top.indices.tolist(), top.values.tolist(), strict=True)
    return [
        ScoredToken(token_id, logprob, list(zip(ids, values, strict=True)))
        for token_id, logprob, ids, values in rows
    ]
