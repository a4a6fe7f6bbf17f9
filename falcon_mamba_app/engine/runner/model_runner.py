"""Every tensor of the engine and every launch: sequences in, sampled tokens out.

All work on the device starts here, on the engine's thread. It packs sequences into `passes`,
launches or replays them, and reads their results. It does not decide which sequences run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from falcon_mamba_app.engine.runner.graphs import Graphs, smallest_shape
from falcon_mamba_app.engine.runner.passes import Passes
from falcon_mamba_app.engine.runner.penalties import (
    Penalties,
    needs_changes,
    pack_params,
    uniform,
)
from falcon_mamba_app.engine.runner.prompt_lookup import PromptLookup
from falcon_mamba_app.engine.runner.scoring import ScoredToken, ScoredTokens, score_rows
from falcon_mamba_app.engine.runner.step_tensors import Shape, StepTensors, pack, starts_of
from falcon_mamba_app.engine.runner.warm_up import warm_up
from falcon_mamba_app.engine.scheduler import PrefillChunk
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states.pool import StatePool
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops.reference.sampling import NO_TOKEN

# Prompt positions whose fp32 logits are in memory at once: 33 MB at a vocabulary of 65,024.
SCORE_TILE = 128


@dataclass(frozen=True, slots=True)
class SampledToken:
    """What one decode step chose for one row; `score` is None unless the request asked for it.

    `token_id` is NO_TOKEN where the model's logits were not finite. `num_drafted` is the length of
    a draft that began here, and `was_drafted` says that this token is one of an accepted draft.
    """

    token_id: int
    score: ScoredToken | None = None
    num_drafted: int = 0
    was_drafted: bool = False

    @property
    def is_usable(self) -> bool:
        return self.token_id != NO_TOKEN and (self.score is None or self.score.is_finite)


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """A launched decode step; its tokens may still be on their way to the host."""

    rows: list[Sequence]
    token_ids: Tensor  # (b,) int64, host memory
    scores: list[ScoredTokens | None]
    is_done: torch.cuda.Event | None

    def wait(self) -> list[list[SampledToken]]:
        """The one token of each row, as soon as they have arrived."""
        if self.is_done is not None:
            self.is_done.synchronize()
        return [
            [SampledToken(token_id, None if scores is None else scores.as_list()[0])]
            for token_id, scores in zip(self.token_ids.tolist(), self.scores, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class VerifiedStep:
    """As many steps of one row as tokens of its draft were accepted, and one more."""

    rows: list[Sequence]
    tokens: list[SampledToken]

    def wait(self) -> list[list[SampledToken]]:
        return [self.tokens]


Step = DecodeStep | VerifiedStep  # launched, its tokens chosen


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A launched decode step whose tokens are not chosen yet, because a row's choice is limited by
    its earlier tokens. `ModelRunner.choose` makes the choice, before any later pass.
    """

    rows: list[Sequence]
    step: StepTensors
    scores: list[Tensor | None]


class ModelRunner:
    """Runs the model over the slots of a StatePool."""

    def __init__(
        self, passes: Passes, graphs: Graphs | None = None, lookup: PromptLookup | None = None
    ) -> None:
        """`make_runner` makes one that is ready for use."""
        self._passes, self._graphs, self.model = passes, graphs, passes.model
        self.lookup = lookup
        self._penalties = Penalties(
            passes.model.config.vocab_size, passes.model.device, passes.eos_token_ids
        )

    def has_graph(self, rows: list[Sequence], chunks: list[PrefillChunk]) -> bool:
        """Whether the rows and the chunks can share a pass."""
        return self._graphs is not None and self._shape(rows, chunks) is not None

    @torch.inference_mode()
    def decode(self, rows: list[Sequence]) -> Step | OpenStep:
        """Launch one step: feed each row its next token and sample the one after it.

        The step stays open if a row has a matcher. A row alone may get several tokens.
        """
        if self.lookup is not None and len(rows) == 1 and rows[0].matcher is None:
            drafted = self.lookup.draft(rows[0])
            if drafted:
                return VerifiedStep(rows, self._verify(rows[0], drafted, self.lookup))
        return self._settle_rows(rows, self._launch(rows, []))

    def _verify(
        self, seq: Sequence, drafted: list[int], lookup: PromptLookup
    ) -> list[SampledToken]:
        """Sample the tokens that steps would sample, as long as these are the drafted ones,
        and advance the state by as many.
        """
        assert seq.slot is not None and seq.next_token_id is not None, f"{seq.seq_id=}"
        draft = self._passes.try_out(seq.slot, [seq.next_token_id, *drafted])
        tokens: list[SampledToken] = []
        ends = frozenset() if seq.sampling.ignore_eos else self._passes.eos_token_ids
        try:
            for logits, expected in zip(draft.logits.split(1), [*drafted, None], strict=True):
                [token] = self._sample_alone(seq, logits).wait()[0]
                is_accepted = token.is_usable and token.token_id == expected
                tokens.append(replace(token, was_drafted=is_accepted))
                if not is_accepted or token.token_id in ends:
                    break
                seq.num_in_flight += 1
        finally:
            seq.num_in_flight = 0
        self._passes.keep(draft, len(tokens))
        lookup.learn(seq, sum(token.was_drafted for token in tokens))
        return [replace(tokens[0], num_drafted=len(drafted)), *tokens[1:]]

    def _sample_alone(self, seq: Sequence, logits: Tensor) -> DecodeStep:
        """The sequence's next token by its logits (1, v)."""
        scores = self._score_inputs(seq, logits[0])
        self._penalties.apply(logits, [seq])
        number = uniform(seq.seed, seq.num_launched_tokens)
        sampled = self.model.ops.sample(logits, pack_params([seq.sampling], [number]))
        self._penalties.count(sampled, [seq])
        return self._fetch([seq], sampled, [scores])

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
    ) -> tuple[DecodeStep | OpenStep, dict[int, list[ScoredToken]]]:
        """Do both in one pass, which reads the weights once; a graph for it must exist."""
        step = self._launch(rows, chunks)
        num_rows = step.rows.inputs.shape[1]
        return self._settle_rows(rows, step), self._score_prompts(chunks, step.hidden[num_rows:])

    def _launch(self, rows: list[Sequence], chunks: list[PrefillChunk]) -> StepTensors:
        """Advance the rows and read the chunks. A graph also runs its padding, and chooses the
        rows' tokens without penalties.
        """
        shape = self._shape(rows, chunks)
        if self._graphs is not None and shape is not None:
            return self._graphs.replay(pack(rows, chunks, shape), shape)
        shape = Shape(len(rows), starts_of(chunks)[-1], len(chunks))
        return self._passes.advance(self._passes.to_device(pack(rows, chunks, shape)), shape)

    def _shape(self, rows: list[Sequence], chunks: list[PrefillChunk]) -> Shape | None:
        if self._graphs is None:
            return None
        num_tokens = starts_of(chunks)[-1]
        return smallest_shape(self._graphs.shapes, len(rows), num_tokens, len(chunks))

    def _settle_rows(self, rows: list[Sequence], step: StepTensors) -> DecodeStep | OpenStep:
        """Apply penalties and scoring where requested, and send the tokens to the host."""
        logits = _logits_of(rows, step)
        scores = [self._score_inputs(seq, logits[i]) for i, seq in enumerate(rows)]
        has_changes = any(needs_changes(seq) for seq in rows)
        self._penalties.apply(logits, rows)
        if any(seq.matcher is not None for seq in rows):
            return OpenStep(rows, step, scores)
        if step.sampled is None or has_changes:
            step = self._passes.choose(step)
        return self._chosen(rows, step, scores)

    @torch.inference_mode()
    def choose(self, launched: OpenStep, allowed: Tensor) -> DecodeStep:
        """Choose the tokens of an open step. `allowed` (b, ⌈v/32⌉) int32 is in host memory."""
        logits = _logits_of(launched.rows, launched.step)
        self.model.ops.allow_only(logits, self._passes.to_device(allowed))
        step = self._passes.choose(launched.step)
        return self._chosen(launched.rows, step, launched.scores)

    def _chosen(
        self, rows: list[Sequence], step: StepTensors, scores: list[Tensor | None]
    ) -> DecodeStep:
        assert step.sampled is not None, f"{len(rows)} rows without tokens"
        sampled = step.sampled[: len(rows)]
        self._penalties.count(sampled, rows)
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

    def drop(self, seq: Sequence) -> None:
        """Forget the data kept for the sequence beside its state."""
        self._penalties.drop(seq)
        if self.lookup is not None:
            self.lookup.drop(seq)

    def _score_inputs(self, seq: Sequence, logits: Tensor) -> Tensor | None:
        """The row's log-probabilities before any parameter changes its logits, if requested."""
        return None if seq.sampling.logprobs is None else torch.log_softmax(logits, -1)

    def _fetch(
        self, rows: list[Sequence], sampled: Tensor, logprobs: list[Tensor | None]
    ) -> DecodeStep:
        """Start the copies to the host, without waiting for them."""
        tokens = sampled.clamp(min=0)  # the score of NO_TOKEN is not used
        scores = [
            None
            if values is None
            else score_rows(values.unsqueeze(0), tokens[i : i + 1], seq.sampling.logprobs or 0)
            for i, (seq, values) in enumerate(zip(rows, logprobs, strict=True))
        ]
        if self.model.device.type == "cpu":
            return DecodeStep(rows, sampled, scores, None)
        token_ids = torch.empty(sampled.shape, dtype=sampled.dtype, pin_memory=True)
        token_ids.copy_(sampled, non_blocking=True)
        is_done = torch.cuda.Event()
        is_done.record()
        return DecodeStep(rows, token_ids, scores, is_done)

    def _score_prompt(self, chunk: PrefillChunk, hidden: Tensor) -> list[ScoredToken]:
        """Scores of the tokens that the chunk's tokens predict, one tile of logits at a time."""
        assert chunk.seq.score_prompt is not None
        predicted = chunk.seq.tokens(chunk.start + 1, chunk.end + 1)
        scores: list[ScoredToken] = []
        for tile in torch.split(hidden, SCORE_TILE):
            logprobs = torch.log_softmax(self.model.prompt_logits(tile), -1)
            token_ids = torch.tensor(predicted[len(scores) : len(scores) + len(tile)])
            token_ids = token_ids.to(self.model.device)
            scores += score_rows(logprobs, token_ids, chunk.seq.score_prompt).as_list()
        return scores


def _logits_of(rows: list[Sequence], step: StepTensors) -> Tensor:
    assert step.logits is not None, f"{len(rows)} rows without logits"
    return step.logits[: len(rows)]


def make_runner(
    model: FalconMamba, pool: StatePool, *, eos_token_ids: frozenset[int], speculates: bool = False
) -> ModelRunner:
    """A runner with all kernels compiled and, on a GPU, with its passes captured."""
    passes = Passes(model, pool, eos_token_ids=eos_token_ids)
    warm_up(passes)
    shapes = passes.shapes_to_capture()
    graphs = Graphs(passes.run, shapes, model.device) if shapes else None
    num_drafted = model.ops.num_verifiable_tokens - 1  # the first token of a pass is known
    return ModelRunner(passes, graphs, PromptLookup(num_drafted) if speculates else None)
