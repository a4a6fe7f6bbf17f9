"""Every tensor of the engine and every launch: sequences in, sampled tokens out.

Anything that runs on the device runs from here, on the engine's thread. A decode step can be
launched before the host has read the one before: the device itself hands each row its last token
and knows which rows have ended. This module does not decide who runs.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from falcon_mamba_app.engine.runner.graphs import Graphs, shapes_for, smallest_shape
from falcon_mamba_app.engine.runner.penalties import TokenCounts, needs_counts, penalize
from falcon_mamba_app.engine.runner.scoring import ScoredToken, ScoredTokens, score_rows
from falcon_mamba_app.engine.runner.step_tensors import (
    NUM_GIVEN,
    Shape,
    StepTensors,
    pack,
    padding,
    starts_of,
    unpack,
)
from falcon_mamba_app.engine.scheduler import PrefillChunk
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states.pool import StatePool
from falcon_mamba_app.model.falcon_mamba import Batch, FalconMamba

logger = logging.getLogger(__name__)

# Prompt positions whose fp32 logits are in memory at once: 33 MB at a vocabulary of 65,024.
SCORE_TILE = 128
# Kernels are compiled for 1 row, for up to 16, 32 and 64, and for more tokens than that. In each of
# the two stages some runs go one after the other in each of several threads, so that hardly any
# kernel is compiled twice at the same time.
WARM_UP_STAGES = (
    ((Shape(9), Shape(0, 2, 1)), (Shape(1),), (Shape(0, 65, 1),)),
    ((Shape(17), Shape(0, 17, 1)), (Shape(33), Shape(0, 33, 1))),
)


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
        self,
        model: FalconMamba,
        pool: StatePool,
        *,
        eos_token_ids: frozenset[int],
        captures: bool = True,
    ) -> None:
        """On a GPU it captures its passes, unless it is there to have them compiled alone."""
        self._model, self._pool = model, pool
        self._counts: dict[int, TokenCounts] = {}  # by seq_id, for sequences with penalties
        is_eos = [token_id in eos_token_ids for token_id in range(model.config.vocab_size)]
        self._is_eos = torch.tensor(is_eos, device=model.device)
        # By slot: the token that the newest decode step sampled, and where the row goes on: in its
        # slot, or in the scratch slot once that token has ended the reply.
        carried = [[0] * pool.num_slots, list(range(pool.num_slots))]
        self._carried = torch.tensor(carried, device=model.device)
        self._graphs: Graphs | None = None
        is_on_gpu = model.device.type == "cuda"
        shapes = shapes_for(model.ops, pool.num_slots - 1) if is_on_gpu else []
        self._warm_up(shapes)
        if shapes and captures:
            self._graphs = Graphs(self._pass, shapes, model.device)

    def _pass(self, inputs: Tensor, shape: Shape, num_layers: int | None = None) -> StepTensors:
        """All that is captured of a pass; of `num_layers` alone in a warm-up."""
        step = self._advance(inputs, shape, num_layers)
        return step if step.logits is None else self._choose(step)

    def has_graph(self, rows: list[Sequence], chunks: list[PrefillChunk]) -> bool:
        """Whether the rows and the chunks can share a pass."""
        return self._graphs is not None and self._shape(rows, chunks) is not None

    @torch.inference_mode()
    def decode(self, rows: list[Sequence]) -> DecodeStep:
        """Launch one step: feed each row its next token and sample the one after it."""
        return self._settle_rows(rows, self._launch(rows, []))

    @torch.inference_mode()
    def prefill(self, chunks: list[PrefillChunk]) -> dict[int, list[ScoredToken]]:
        """Read the chunks, advancing their sequences' states.

        Returns:
            By seq_id, for sequences that score their prompt: the scores of tokens start+1 … end,
            each predicted by the token before it.
        """
        return self._score_prompts(chunks, self._launch([], chunks).hidden)

    @torch.inference_mode()
    def decode_and_prefill(
        self, rows: list[Sequence], chunks: list[PrefillChunk]
    ) -> tuple[DecodeStep, dict[int, list[ScoredToken]]]:
        """Both in one pass, which reads the weights once; there must be a graph for it."""
        step = self._launch(rows, chunks)
        num_rows = step.rows.given.shape[1]
        return self._settle_rows(rows, step), self._score_prompts(chunks, step.hidden[num_rows:])

    def _launch(self, rows: list[Sequence], chunks: list[PrefillChunk]) -> StepTensors:
        """Advance the rows and read the chunks. A graph does so for padding too, and has chosen the
        rows' tokens as if nobody had penalties.
        """
        shape = self._shape(rows, chunks)
        if self._graphs is not None and shape is not None:
            return self._graphs.replay(pack(rows, chunks, shape), shape)
        shape = Shape(len(rows), starts_of(chunks)[-1], len(chunks))
        return self._advance(self._to_device(pack(rows, chunks, shape)), shape)

    def _shape(self, rows: list[Sequence], chunks: list[PrefillChunk]) -> Shape | None:
        if self._graphs is None:
            return None
        num_tokens = starts_of(chunks)[-1]
        return smallest_shape(self._graphs.shapes, len(rows), num_tokens, len(chunks))

    def _advance(self, inputs: Tensor, shape: Shape, num_layers: int | None = None) -> StepTensors:
        """One pass over `inputs`, as `pack` makes them, on the device."""
        rows, prompts = unpack(inputs, shape)
        if not shape.num_rows:
            return StepTensors(self._hidden(prompts, num_layers), rows)
        token_ids, live_slots = self._model.ops.feed(rows.given, self._carried)
        batch = Batch(token_ids, live_slots)
        batch = prompts.behind_rows(batch) if shape.num_tokens else batch
        hidden = self._hidden(batch, num_layers)
        logits = self._model.logits(hidden[: shape.num_rows], is_step=True)
        return StepTensors(hidden, rows, live_slots, logits)

    def _hidden(self, batch: Batch, num_layers: int | None) -> Tensor:
        conv_states = self._pool.conv_states[:num_layers]
        hidden: Tensor = self._model(batch, conv_states, self._pool.ssm_states[:num_layers])
        return hidden

    def _choose(self, step: StepTensors) -> StepTensors:
        """Sample each row's token and hand it to the next step. Asked twice, it hands on anew."""
        ops, rows = self._model.ops, step.rows
        sampled = ops.sample(step.logits, rows.params)
        sampled = ops.hand_on(sampled, rows.given, step.live_slots, self._is_eos, self._carried)
        return replace(step, sampled=sampled)

    def _settle_rows(self, rows: list[Sequence], step: StepTensors) -> DecodeStep:
        """Apply what only some requests ask for, and send the tokens to the host."""
        assert step.logits is not None, f"{len(rows)} rows without logits"
        logits = step.logits[: len(rows)]
        scores = [self._score_inputs(seq, logits[i]) for i, seq in enumerate(rows)]
        has_penalties = any(needs_counts(seq.sampling) for seq in rows)
        self._penalize(logits, rows)
        if step.sampled is None or has_penalties:
            step = self._choose(step)
        assert step.sampled is not None, f"{len(rows)} rows without tokens"
        sampled = step.sampled[: len(rows)]
        self._count(sampled, rows)
        return self._fetch(rows, sampled, scores)

    def _score_prompts(
        self, chunks: list[PrefillChunk], hidden: Tensor
    ) -> dict[int, list[ScoredToken]]:
        return {
            chunk.seq.seq_id: self._score_prompt(
                chunk, hidden[start : start + chunk.end - chunk.start]
            )
            for chunk, start in zip(chunks, starts_of(chunks), strict=False)
            if chunk.seq.score_prompt is not None
        }

    def _warm_up(self, captured: list[Shape]) -> None:
        """Have everything that compiles at first use compiled, on the scratch slot, before anybody
        waits for it. One layer is enough: the others run the same kernels.
        """
        started_s = time.perf_counter()
        if self._model.device.type == "cuda":
            # Alone first: what a compiler loads for itself is loaded once.
            self._model.ops.feed(
                torch.zeros(NUM_GIVEN, 1, device=self._model.device), self._carried
            )
        for stage in WARM_UP_STAGES:
            self._warm_up_together(stage)
        for shape in captured:
            self._run_padding(shape)
        seconds = time.perf_counter() - started_s
        logger.info("warmed up in %.1f s, compilation included", seconds)

    def _warm_up_together(self, stage: tuple[tuple[Shape, ...], ...]) -> None:
        """On a GPU by several threads: compilers let go of the interpreter."""
        if self._model.device.type == "cpu":
            for shapes in stage:
                self._warm_up_one_by_one(shapes)
            return
        with ThreadPoolExecutor(len(stage)) as threads:
            list(threads.map(self._warm_up_one_by_one, stage))

    def _warm_up_one_by_one(self, shapes: tuple[Shape, ...]) -> None:
        for shape in shapes:
            if shape.num_rows < self._pool.num_slots:
                self._warm_up_shape(shape)

    @torch.inference_mode()
    def _warm_up_shape(self, shape: Shape) -> None:
        inputs = padding(shape)
        if shape.num_tokens:
            inputs[-1] = shape.num_tokens  # where the one sequence ends
        step = self._pass(self._to_device(inputs), shape, 1)
        if not shape.num_rows:
            self._model.logits(step.hidden[-1:], is_step=False)

    @torch.inference_mode()
    def _run_padding(self, shape: Shape) -> None:
        self._pass(self._to_device(padding(shape)), shape, 1)

    def drop(self, seq: Sequence) -> None:
        """Forget what is kept beside the sequence's state."""
        self._counts.pop(seq.seq_id, None)

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
