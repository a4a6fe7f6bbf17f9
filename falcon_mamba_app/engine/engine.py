"""The engine: sequences in, events out, one step at a time.

`step()` is plan → run → settle. It owns the slots and the snapshots, and keeps the one promise on
which everything rests: a state advances only by committed tokens. It knows no text, no HTTP and no
asyncio; it has no thread of its own, so tests call `step()` themselves.
"""

from __future__ import annotations

import logging

import torch

from falcon_mamba_app.engine.events import (
    Admitted,
    Ended,
    EngineEvent,
    Failed,
    Prefilled,
    Queued,
    Sampled,
)
from falcon_mamba_app.engine.runner.model_runner import DecodeStep, ModelRunner, SampledToken
from falcon_mamba_app.engine.runner.scoring import ScoredToken
from falcon_mamba_app.engine.scheduler import Plan, PrefillChunk, Scheduler
from falcon_mamba_app.engine.sequence import Sequence, Status
from falcon_mamba_app.engine.states.keeper import StateKeeper
from falcon_mamba_app.engine.states.pool import StatePool
from falcon_mamba_app.engine.states.store import SnapshotStore
from falcon_mamba_app.errors import Overloaded, ReplyFailure
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.protocol import FinishReason

logger = logging.getLogger(__name__)


class Engine:
    """Everything between token ids in and token ids out.

    With `look_ahead` a decode step is launched before the tokens of the one before it are read, so
    that a GPU never waits for the host; a CPU gains nothing from it.
    """

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        states: StateKeeper,
        *,
        eos_token_ids: frozenset[int],
        look_ahead: bool,
    ) -> None:
        """`build.build_engine` puts the parts together."""
        self._runner, self._scheduler, self._states = runner, scheduler, states
        self._eos_token_ids, self._look_ahead = eos_token_ids, look_ahead
        self._in_flight: DecodeStep | None = None
        self._late_events: list[EngineEvent] = []  # settled outside of a step
        self._sequences: dict[int, Sequence] = {}

    @property
    def model(self) -> FalconMamba:
        return self._runner.model

    @property
    def pool(self) -> StatePool:
        return self._states.pool

    @property
    def snapshots(self) -> SnapshotStore:
        return self._states.snapshots

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def has_work(self) -> bool:
        return bool(self._sequences or self._late_events)

    def add(self, seq: Sequence) -> None:
        """Take on a sequence; its events carry its seq_id."""
        assert seq.prompt_token_ids, f"{seq.seq_id=} has no prompt"
        self._sequences[seq.seq_id] = seq
        self._scheduler.add(seq)

    def abort(self, seq_id: int) -> None:
        """Give up a sequence, keeping what it has read as a snapshot."""
        seq = self._sequences.get(seq_id)
        if seq is not None and seq.num_in_flight:
            # The state is ahead of what is known here; it catches up before the state is saved.
            self._late_events += self._settle(self._in_flight)
            self._in_flight = None
        if seq is not None and seq.status is not Status.FINISHED:
            self._finish(seq)

    def forget(self, session_id: str) -> bool:
        """Drop the session's snapshots, and keep none of what it is reading or writing now;
        whether there was any of either.
        """
        had_snapshots = self.snapshots.forget(session_id)
        at_work = [seq for seq in self._sequences.values() if seq.session_id == session_id]
        for seq in at_work:
            seq.session_id = None
        return had_snapshots or bool(at_work)

    def step(self) -> list[EngineEvent]:
        """Advance every running sequence once; returns what became known, in order."""
        events, self._late_events = self._late_events, []
        events += self._admit()
        launched, known = self._run(self._scheduler.plan())
        events += known
        if self._look_ahead:
            launched, self._in_flight = self._in_flight, launched
        return events + self._settle(launched)

    def _run(self, plan: Plan) -> tuple[DecodeStep | None, list[EngineEvent]]:
        """Launch what is planned, in one pass where there is a graph for all of it, else in two."""
        if plan.decode and plan.prefill and self._runner.has_graph(plan.decode, plan.prefill):
            return self._decode_and_prefill(plan.decode, plan.prefill)
        launched: DecodeStep | None = None
        events: list[EngineEvent] = []
        if plan.decode:
            try:
                launched = self._decode(plan.decode)
            except torch.OutOfMemoryError as error:
                events += [self._fail(seq, error) for seq in plan.decode]
        if plan.prefill:
            events += self._prefill(plan.prefill)
        return launched, events

    def _admit(self) -> list[EngineEvent]:
        """Give free slots to those who wait longest, with the best state we have for them."""
        admitted = self._scheduler.admit()
        events = [event for seq in admitted for event in self._start(seq)]
        for position, seq in enumerate(self._scheduler.waiting, start=1):
            if seq.queue_position != position:
                seq.queue_position = position
                events.append(Queued(seq.seq_id, position))
        return events

    def _start(self, seq: Sequence) -> list[EngineEvent]:
        self._states.take_slot(seq)
        seq.status = Status.PREFILLING
        is_read = seq.num_remaining_prefill_tokens == 0
        admitted = Admitted(seq.seq_id, seq.num_computed_tokens)
        return [admitted, *(self._end_prefill(seq) if is_read else [])]

    def _decode(self, rows: list[Sequence]) -> DecodeStep:
        launched = self._runner.decode(rows)
        _count_in_flight(rows)
        return launched

    def _decode_and_prefill(
        self, rows: list[Sequence], chunks: list[PrefillChunk]
    ) -> tuple[DecodeStep | None, list[EngineEvent]]:
        try:
            launched, scores = self._runner.decode_and_prefill(rows, chunks)
        except torch.OutOfMemoryError as error:
            return None, [self._fail(seq, error) for seq in [*rows, *(c.seq for c in chunks)]]
        _count_in_flight(rows)
        return launched, self._after_chunks(chunks, scores)

    def _settle(self, launched: DecodeStep | None) -> list[EngineEvent]:
        """Take in the tokens of a decode step that was launched, now or a step ago."""
        if launched is None:
            return []
        events: list[EngineEvent] = []
        for seq, token in zip(launched.rows, launched.wait(), strict=True):
            seq.num_in_flight -= 1
            if seq.status is not Status.FINISHED:  # else launched before its end was known
                events += self._commit(seq, token)
        return events

    def _commit(self, seq: Sequence, token: SampledToken) -> list[EngineEvent]:
        """Append one sampled token, and end the sequence where it ends."""
        if not token.is_usable:
            return [self._fail_without_numbers(seq)]
        seq.num_computed_tokens += 1
        seq.output_token_ids.append(token.token_id)
        reason = self._finish_reason(seq)
        if reason is None:
            return [Sampled(seq.seq_id, token)]
        self._finish(seq)
        return [Sampled(seq.seq_id, token), Ended(seq.seq_id, reason)]

    def _finish_reason(self, seq: Sequence) -> FinishReason | None:
        if seq.output_token_ids[-1] in self._eos_token_ids and not seq.sampling.ignore_eos:
            return "stop"
        return "length" if len(seq.output_token_ids) >= seq.sampling.max_new_tokens else None

    def _prefill(self, chunks: list[PrefillChunk]) -> list[EngineEvent]:
        try:
            scores = self._runner.prefill(chunks)
        except torch.OutOfMemoryError as error:
            return [self._fail(chunk.seq, error) for chunk in chunks]
        return self._after_chunks(chunks, scores)

    def _after_chunks(
        self, chunks: list[PrefillChunk], scores: dict[int, list[ScoredToken]]
    ) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        for chunk in chunks:
            seq = chunk.seq
            seq.num_computed_tokens = chunk.end
            num_tokens = chunk.end - chunk.start
            seq_scores = scores.get(seq.seq_id, [])
            if not all(score.is_finite for score in seq_scores):
                events.append(self._fail_without_numbers(seq))
                continue
            events.append(Prefilled(seq.seq_id, chunk.end, num_tokens, seq_scores))
            if seq.num_remaining_prefill_tokens == 0:
                events += self._end_prefill(seq)
        return events

    def _end_prefill(self, seq: Sequence) -> list[EngineEvent]:
        if seq.sampling.max_new_tokens == 0:
            self._finish(seq)
            return [Ended(seq.seq_id, "length")]
        self._states.save(seq)  # exactly what a retry needs
        seq.status = Status.DECODING
        return []

    def _finish(self, seq: Sequence) -> None:
        """Free the slot, keeping the state for the session's next turn."""
        self._states.save(seq)
        self._drop(seq)

    def _fail(self, seq: Sequence, error: Exception) -> Failed:
        """Free the slot without keeping a state that may be half advanced."""
        self._drop(seq)
        reason = str(error).partition("\n")[0]
        return Failed(seq.seq_id, Overloaded(f"the device ran out of memory in mid-step: {reason}"))

    def _fail_without_numbers(self, seq: Sequence) -> Failed:
        """The session's saved states go too: the fault may have begun in any of them."""
        logger.warning(
            "the model's logits are not finite after %d tokens; one reply given up",
            seq.num_computed_tokens,
        )
        self._drop(seq)
        if seq.session_id is not None:
            self.snapshots.forget(seq.session_id)
        return Failed(
            seq.seq_id,
            ReplyFailure(
                "the model computed no number to choose the next token by (its weights are"
                " damaged, or its values exceed this precision), so the reply ends here;"
                " --dtype float32 or bfloat16 has the wider range"
            ),
        )

    def _drop(self, seq: Sequence) -> None:
        self._scheduler.remove(seq)
        self._states.release_slot(seq)
        self._runner.drop(seq)
        del self._sequences[seq.seq_id]
        seq.status = Status.FINISHED


def _count_in_flight(rows: list[Sequence]) -> None:
    for seq in rows:
        seq.num_in_flight += 1
