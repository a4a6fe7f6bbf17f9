"""The engine: sequences in, events out, one step at a time.

`step()` is plan → run → settle, on its caller's thread. It owns slots and snapshots, and keeps one
invariant: a state advances only by committed tokens. It knows no text, no HTTP and no asyncio.

An error in the work for one sequence ends that alone. After an error in a step of several, each
begins again and runs alone until a step succeeds or fails. Only a dead device ends the engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch

from falcon_mamba_app.engine import failures
from falcon_mamba_app.engine.events import (
    Admitted,
    Ended,
    EngineEvent,
    Failed,
    Prefilled,
    Queued,
    Sampled,
)
from falcon_mamba_app.engine.masks import TokenMasks
from falcon_mamba_app.engine.runner.model_runner import ModelRunner, OpenStep, SampledToken, Step
from falcon_mamba_app.engine.runner.prompt_lookup import PromptLookup
from falcon_mamba_app.engine.runner.scoring import ScoredToken
from falcon_mamba_app.engine.scheduler import Plan, PrefillChunk, Scheduler
from falcon_mamba_app.engine.sequence import Sequence, Status
from falcon_mamba_app.engine.state_keeper import StateKeeper
from falcon_mamba_app.engine.states.pool import StatePool
from falcon_mamba_app.engine.states.store import SnapshotStore
from falcon_mamba_app.errors import is_lack_of_memory, origin_of
from falcon_mamba_app.model.falcon_mamba import FalconMamba

logger = logging.getLogger(__name__)


class Engine:
    """Token ids in, token ids out. With `look_ahead` a decode step is launched before the tokens of
    the previous one are read: a GPU then never waits for the host; a CPU gains nothing from it.
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
        self._in_flight: Step | None = None
        self._late_events: list[EngineEvent] = []  # settled outside of a step
        self._sequences: dict[int, Sequence] = {}

    @property
    def model(self) -> FalconMamba:
        return self._runner.model

    def draft_by(self, lookup: PromptLookup | None) -> None:
        """Draft tokens by `lookup` from now on, or none; for measurements and tests."""
        self._runner.lookup = lookup

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
        """Accept a sequence; its events carry its seq_id."""
        assert seq.prompt_token_ids, f"{seq.seq_id=} has no prompt"
        self._sequences[seq.seq_id] = seq
        self._scheduler.add(seq)

    def abort(self, seq_id: int) -> None:
        """Give up a sequence, keeping what it has read as a snapshot."""
        seq = self._sequences.get(seq_id)
        if seq is not None and seq.num_in_flight:
            # The state is ahead of the tokens known here; read them before the state is saved.
            self._late_events += self._settle(self._in_flight)
            self._in_flight = None
        if seq is not None and seq.status is not Status.FINISHED:
            self._late_events += self._guarded(seq, partial(self._finish, seq))

    def running_state(self, session_id: str) -> torch.Tensor | None:
        """The ssm state (l, n, d) of the session's running sequence; read it at once."""
        running = [seq for seq in self._scheduler.running if not seq.is_aside]
        slots = [seq.slot for seq in running if seq.session_id == session_id]
        return self.pool.ssm_states[:, slots[0]] if slots and slots[0] is not None else None

    def forget(self, session_id: str) -> bool:
        """Drop the session's snapshots and save none of its running ones; whether it had either."""
        had_snapshots = self.snapshots.forget(session_id)
        at_work = [seq for seq in self._sequences.values() if seq.session_id == session_id]
        for seq in at_work:
            seq.session_id = None
        return had_snapshots or bool(at_work)

    def step(self) -> list[EngineEvent]:
        """Advance every running sequence once; returns what became known, in order."""
        events, self._late_events = self._late_events, []
        self._make_way()
        events += self._admit()
        launched, known = self._run(self._scheduler.plan())
        events += known
        if self._look_ahead:
            launched, self._in_flight = self._in_flight, launched
        return events + self._settle(launched)

    def _run(self, plan: Plan) -> tuple[Step | None, list[EngineEvent]]:
        """Launch the plan: in one pass where a graph holds all of it, otherwise in two."""
        rows, chunks = plan.decode, plan.prefill
        if rows and chunks and not self._runner.has_graph(rows, chunks):
            launched, events = self._launch(rows, [])
            return launched, events + self._launch([], chunks)[1]
        return self._launch(rows, chunks)

    def _launch(
        self, rows: list[Sequence], chunks: list[PrefillChunk]
    ) -> tuple[Step | None, list[EngineEvent]]:
        launched: Step | OpenStep | None = None
        scores: dict[int, list[ScoredToken]] = {}
        try:
            if rows and chunks:
                launched, scores = self._runner.decode_and_prefill(rows, chunks)
            elif rows:
                launched = self._runner.decode(rows)
            elif chunks:
                scores = self._runner.prefill(chunks)
        except Exception as error:
            return None, self._isolate([*rows, *(chunk.seq for chunk in chunks)], error)
        for seq in rows:
            seq.num_in_flight += 1
        events: list[EngineEvent] = []
        if isinstance(launched, OpenStep):
            launched, events = self._choose(launched)
        return launched, events + self._after_chunks(chunks, scores)

    def _choose(self, launched: OpenStep) -> tuple[Step | None, list[EngineEvent]]:
        """Read the tokens before an open step, on which its own depend, and choose these."""
        in_flight, self._in_flight = self._in_flight, None
        events, masks = self._settle(in_flight), TokenMasks(launched.rows, self.model.config)
        for seq in masks.limited:
            events += self._guarded(seq, partial(masks.limit, seq))
        try:
            return self._runner.choose(launched, masks.words), events
        except Exception as error:
            for seq in launched.rows:
                seq.num_in_flight -= 1
            return None, events + self._isolate(launched.rows, error)

    def _make_way(self) -> None:
        """Park a sequence of an owner with many slots, for a newcomer that has none."""
        seq = self._scheduler.choose_to_yield()
        if seq is None or seq.num_in_flight:  # settled in this step, parked in the next
            return
        if self._states.park(seq):
            seq.status = Status.WAITING
            self._scheduler.park(seq)
        else:
            self._scheduler.keep()

    def _admit(self) -> list[EngineEvent]:
        """Give free slots to the next sequences, each with the best state saved for it."""
        admitted = self._scheduler.admit()
        events = [
            event for seq in admitted for event in self._guarded(seq, partial(self._start, seq))
        ]
        return events + [Queued(*place) for place in self._scheduler.new_positions()]

    def _start(self, seq: Sequence) -> list[EngineEvent]:
        if seq.parked is not None:
            return self._resume(seq)
        seq.status = Status.PREFILLING
        self._states.take_slot(seq)
        is_read = seq.num_remaining_prefill_tokens == 0
        admitted = Admitted(seq.seq_id, seq.num_computed_tokens)
        return [admitted, *(self._end_prefill(seq) if is_read else [])]

    def _resume(self, seq: Sequence) -> list[EngineEvent]:
        """Continue the sequence where it was parked."""
        is_read = seq.num_remaining_prefill_tokens <= 0
        seq.status = Status.DECODING if is_read else Status.PREFILLING
        self._states.take_slot(seq)
        return []

    def _settle(self, launched: Step | None) -> list[EngineEvent]:
        """Read the tokens of a launched decode step, of this step or the previous one."""
        if launched is None:
            return []
        events: list[EngineEvent] = []
        for seq, tokens in zip(launched.rows, launched.wait(), strict=True):
            seq.num_in_flight -= 1
            for token in tokens:
                if seq.status is not Status.FINISHED:  # steps after the end are dropped
                    events += self._guarded(seq, partial(self._commit, seq, token))
        return events

    def _commit(self, seq: Sequence, token: SampledToken) -> list[EngineEvent]:
        """Append one sampled token, and end the sequence if it was the last."""
        if not token.is_usable:
            return [self._fail_without_numbers(seq)]
        if seq.matcher is not None:
            seq.matcher.advance(token.token_id)
        seq.is_suspect = False
        seq.num_computed_tokens += 1
        seq.output_token_ids.append(token.token_id)
        reason = seq.finish_reason(self._eos_token_ids)
        if reason is None:
            return [Sampled(seq.seq_id, token)]
        self._finish(seq)
        return [Sampled(seq.seq_id, token), Ended(seq.seq_id, reason)]

    def _after_chunks(
        self, chunks: list[PrefillChunk], scores: dict[int, list[ScoredToken]]
    ) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        for chunk in chunks:
            seq_scores = scores.get(chunk.seq.seq_id, [])
            events += self._guarded(chunk.seq, partial(self._read, chunk, seq_scores))
        return events

    def _read(self, chunk: PrefillChunk, scores: list[ScoredToken]) -> list[EngineEvent]:
        """Record that the sequence has read the chunk; tokens read a second time give no event."""
        seq, num_tokens = chunk.seq, chunk.end - chunk.start
        if not all(score.is_finite for score in scores):
            return [self._fail_without_numbers(seq)]
        seq.num_computed_tokens = chunk.end
        self._states.save_for_others(seq)
        events: list[EngineEvent] = []
        if seq.num_told_tokens < min(chunk.end, len(seq.prompt_token_ids) - 1):
            scores = scores[max(0, seq.num_told_tokens - chunk.start) :]
            seq.num_told_tokens = chunk.end
            events.append(Prefilled(seq.seq_id, chunk.end, num_tokens, scores))
        return events + (self._end_prefill(seq) if seq.num_remaining_prefill_tokens == 0 else [])

    def _end_prefill(self, seq: Sequence) -> list[EngineEvent]:
        if seq.sampling.max_new_tokens == 0:
            self._finish(seq)
            return [Ended(seq.seq_id, "length")]
        self._states.save(seq)  # a retry begins here
        seq.status = Status.DECODING
        return []

    def _finish(self, seq: Sequence) -> list[EngineEvent]:
        """Free the slot, keeping the state for the session's next turn."""
        self._states.save(seq)
        self._drop(seq)
        return []

    def _guarded(self, seq: Sequence, work: Callable[[], list[EngineEvent]]) -> list[EngineEvent]:
        """The events of `work` for the sequence; an error in it ends that sequence alone."""
        try:
            return work()
        except Exception as error:
            self._refuse_dead_device()
            return [self._fail(seq, error)]

    def _isolate(self, seqs: list[Sequence], error: Exception) -> list[EngineEvent]:
        """After an error in a step: a sequence that was alone in it fails; several begin again."""
        self._refuse_dead_device()
        seqs = [seq for seq in seqs if seq.status is not Status.FINISHED]
        if len(seqs) == 1 or is_lack_of_memory(error):
            return [self._fail(seq, error) for seq in seqs]
        logger.error("a step of %d sequences failed: %s", len(seqs), origin_of(error))
        # Tokens still on the device are read first, so that each sequence can be read again whole.
        in_flight, self._in_flight = self._in_flight, None
        events = self._settle(in_flight)
        for seq in seqs:
            if seq.slot is not None:
                self.pool.clear(seq.slot)
                self._runner.drop(seq)
                seq.begin_again()
        return events

    def _refuse_dead_device(self) -> None:
        """Raises the device's error where the device no longer answers."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()

    def _fail(self, seq: Sequence, error: Exception) -> Failed:
        """Free the slot and drop its state, which may be half advanced."""
        self._drop(seq)
        return failures.after_error(seq, error)

    def _fail_without_numbers(self, seq: Sequence) -> Failed:
        """Fail, and drop the session's saved states: the fault may have begun in any of them."""
        self._drop(seq)
        self._states.forget_origins(seq)
        return failures.without_numbers(seq)

    def _drop(self, seq: Sequence) -> None:
        self._scheduler.remove(seq)
        self._states.release_slot(seq)
        self._runner.drop(seq)
        del self._sequences[seq.seq_id]
        seq.status = Status.FINISHED
