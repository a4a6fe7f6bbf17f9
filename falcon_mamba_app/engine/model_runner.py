"""Every tensor of the engine and every launch: sequences in, sampled tokens out.

Anything that runs on the device runs from here, on the engine's thread. A decode step can be
launched before the host has read the one before: the device itself hands each row its last token
and knows which rows have ended. This module does not decide who runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_mamba_app.engine.decode_graphs import DecodeGraphs
from falcon_mamba_app.engine.sampler import (
    TokenCounts,
    needs_counts,
    pack_params,
    penalize,
    uniform,
)
from falcon_mamba_app.engine.scheduler import PrefillChunk
from falcon_mamba_app.engine.scoring import ScoredToken, ScoredTokens, score_rows
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.state_pool import SCRATCH_SLOT, StatePool
from falcon_mamba_app.model.falcon_mamba import Batch, FalconMamba
from falcon_mamba_app.protocol import SamplingParams

# Prompt positions whose fp32 logits are in memory at once: 33 MB at a vocabulary of 65,024.
SCORE_TILE = 128
# In place of a token that only the device knows so far.
ON_DEVICE = -1


@dataclass(frozen=True, slots=True)
class SampledToken:
    """What one decode step chose for one row; `score` is None unless the request asked for it."""

    token_id: int
    score: ScoredToken | None = None


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """A decode step that was launched; its tokens may still be on their way to the host."""

    rows: list[Sequence]
    token_ids: Tensor  # (b,) int64, host memory
    scores: list[ScoredTokens | None]
    is_done: torch.cuda.Event | None

    def wait(self) -> list[SampledToken]:
        """The rows' tokens, in order, as soon as they have arrived."""
        if self.is_done is not None:
            self.is_done.synchronize()
        return [
            SampledToken(token_id, None if scores is None else scores.as_list()[0])
            for token_id, scores in zip(self.token_ids.tolist(), self.scores, strict=True)
        ]


class ModelRunner:
    """Runs the model over the slots of a StatePool."""

    def __init__(
        self, model: FalconMamba, pool: StatePool, *, eos_token_ids: frozenset[int]
    ) -> None:
        self._model, self._pool = model, pool
        self._counts: dict[int, TokenCounts] = {}  # by seq_id, for sequences with penalties
        is_eos = [token_id in eos_token_ids for token_id in range(model.config.vocab_size)]
        self._is_eos = torch.tensor(is_eos, device=model.device)
        # By slot: the token that the newest decode step sampled, and where the row goes on: in its
        # slot, or in the scratch slot once that token has ended the reply.
        carried = [[0] * pool.num_slots, list(range(pool.num_slots))]
        self._carried = torch.tensor(carried, device=model.device)
        on_gpu = model.device.type == "cuda"
        self._graphs = DecodeGraphs(model, pool) if on_gpu else None
        self._warm_up()

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
        packed = self._to_device(torch.tensor([*token_ids, *slots, *query_starts]))
        batch = Batch(*packed.split([len(token_ids), len(slots), len(query_starts)]))
        hidden = self._model(batch, self._pool.conv_states, self._pool.ssm_states)
        return {
            chunk.seq.seq_id: self._score_prompt(
                chunk, hidden[start : start + chunk.end - chunk.start]
            )
            for chunk, start in zip(chunks, query_starts, strict=False)
            if chunk.seq.score_prompt is not None
        }

    @torch.inference_mode()
    def decode(self, rows: list[Sequence]) -> DecodeStep:
        """Launch one step: feed each row its next token and sample the one after it."""
        given, slots_after_eos = self._inputs(rows)
        token_ids, slots = given
        # A reply that ended before the host knew of it must not move its state any more.
        token_ids, live_slots = torch.where(
            token_ids == ON_DEVICE, self._carried[:, slots], given
        ).unbind()
        logits = self._logits(token_ids, live_slots)
        scores = [self._score_inputs(seq, logits[i]) for i, seq in enumerate(rows)]
        self._penalize(logits, rows)
        numbers = [uniform(seq.seed, seq.num_launched_tokens) for seq in rows]
        params = self._to_device(pack_params([seq.sampling for seq in rows], numbers))
        sampled = self._model.ops.sample(logits, params)
        # Logits that are no numbers must not lead outside the vocabulary.
        sampled.clamp_(0, self._model.config.vocab_size - 1)
        live_slots = torch.where(self._is_eos[sampled], slots_after_eos, live_slots)
        self._carried[:, slots] = torch.stack([sampled, live_slots])
        self._count(sampled, rows)
        return self._fetch(rows, sampled, scores)

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """Have everything that compiles at first use compiled, on the scratch slot, before anybody
        waits for it.
        """
        num_tokens = 17
        packed = torch.tensor([*range(num_tokens), SCRATCH_SLOT, 0, num_tokens])
        batch = Batch(*self._to_device(packed).split([num_tokens, 1, 2]))
        hidden = self._model(batch, self._pool.conv_states, self._pool.ssm_states)
        logits = self._model.logits(hidden[-1:], is_step=True)
        params = pack_params([SamplingParams(top_k=5, top_p=0.9)], [0.5])
        self._model.ops.sample(logits, self._to_device(params))

    def drop(self, seq: Sequence) -> None:
        """Forget what is kept beside the sequence's state."""
        self._counts.pop(seq.seq_id, None)

    def _inputs(self, rows: list[Sequence]) -> tuple[Tensor, Tensor]:
        """(2, b): the token to feed or ON_DEVICE, and the slot; (b,): where the row goes on once
        it has sampled an end-of-sequence.
        """
        values = [
            [ON_DEVICE if seq.next_token_id is None else seq.next_token_id for seq in rows],
            [seq.slot for seq in rows],
            [seq.slot if seq.sampling.ignore_eos else SCRATCH_SLOT for seq in rows],
        ]
        packed = self._to_device(torch.tensor(values))
        return packed[:2], packed[2]

    def _logits(self, token_ids: Tensor, slots: Tensor) -> Tensor:
        """(b, v) fp32; the states of the slots are advanced by their token."""
        if self._graphs is not None:
            return self._graphs.logits(token_ids, slots)
        hidden = self._model(Batch(token_ids, slots), self._pool.conv_states, self._pool.ssm_states)
        return self._model.logits(hidden, is_step=True)

    def _penalize(self, logits: Tensor, rows: list[Sequence]) -> None:
        for i, seq in enumerate(rows):
            if needs_counts(seq.sampling):
                penalize(logits[i], seq.sampling, self._counts_of(seq))

    def _count(self, sampled: Tensor, rows: list[Sequence]) -> None:
        for i, seq in enumerate(rows):
            if needs_counts(seq.sampling):
                self._counts_of(seq).add(sampled[i : i + 1])

    def _counts_of(self, seq: Sequence) -> TokenCounts:
        """The counts up to the token sampled last, made at the sequence's first step."""
        if seq.seq_id not in self._counts:
            self._counts[seq.seq_id] = TokenCounts(
                seq.prompt_token_ids,
                vocab_size=self._model.config.vocab_size,
                device=self._model.device,
            )
        return self._counts[seq.seq_id]

    def _score_inputs(self, seq: Sequence, logits: Tensor) -> Tensor | None:
        """The row's log-probabilities before any parameter changes its logits, if asked for."""
        return None if seq.sampling.logprobs is None else torch.log_softmax(logits, -1)

    def _fetch(
        self, rows: list[Sequence], sampled: Tensor, logprobs: list[Tensor | None]
    ) -> DecodeStep:
        """Send what the host needs on its way, without waiting for it."""
        scores = [
            None
            if values is None
            else score_rows(values.unsqueeze(0), sampled[i : i + 1], seq.sampling.logprobs or 0)
            for i, (seq, values) in enumerate(zip(rows, logprobs, strict=True))
        ]
        if self._model.device.type == "cpu":
            return DecodeStep(rows, sampled, scores, None)
        token_ids = torch.empty(sampled.shape, dtype=sampled.dtype, pin_memory=True)
        token_ids.copy_(sampled, non_blocking=True)
        is_done = torch.cuda.Event()
        is_done.record()
        return DecodeStep(rows, token_ids, scores, is_done)

    def _score_prompt(self, chunk: PrefillChunk, hidden: Tensor) -> list[ScoredToken]:
        """Scores of the tokens that the chunk's tokens predict, a tile of logits at a time."""
        assert chunk.seq.score_prompt is not None
        predicted = chunk.seq.prompt_token_ids[chunk.start + 1 : chunk.end + 1]
        scores: list[ScoredToken] = []
        for tile in torch.split(hidden, SCORE_TILE):
            logprobs = torch.log_softmax(self._model.logits(tile, is_step=False), -1)
            token_ids = torch.tensor(predicted[len(scores) : len(scores) + len(tile)])
            token_ids = token_ids.to(self._model.device)
            scores += score_rows(logprobs, token_ids, chunk.seq.score_prompt).as_list()
        return scores

    def _to_device(self, values: Tensor) -> Tensor:
        """A small host tensor on the device, without waiting for the device."""
        if self._model.device.type == "cpu":
            return values
        return values.pin_memory().to(self._model.device, non_blocking=True)
