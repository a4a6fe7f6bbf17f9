"""Replaces EngineWorker for LocalService where GPUs are lent: it has runs instead of steps.

Sequences wait in one queue. Several threads take them from it; each performs one run at a time in a
process that has a GPU. The states of all sessions stay here. It knows no text and no platform.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import closing
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TypeVar

from falcon_mamba_app.engine.events import EngineEvent, Failed, Queued
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states.store import MAX_PER_SESSION, Snapshot, SnapshotStore
from falcon_mamba_app.engine.worker import EngineStats, OnEvents, OnFailure
from falcon_mamba_app.errors import Overloaded, ReplyFailure
from falcon_mamba_app.service.zero_gpu.borrowed_run import (
    BorrowedRun,
    PackedSnapshot,
    Report,
    StopFlags,
)

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Perform = Callable[[BorrowedRun], Generator[Report, None, None]]

# A low estimate for the 7B in bfloat16 on half an RTX PRO 6000: a run that ends early is charged
# for the time it took, and a run that takes longer is ended.
READ_TOKENS_PER_S, WRITE_TOKENS_PER_S = 3_000, 40
# From the loan to the first step: 15 GB to the GPU, and the graph of a decode step. The server's
# first run also compiles the kernels, which stay on disk.
PREPARATION_S, FIRST_PREPARATION_S = 12, 45
# The platform charges half as much again; a visitor without an account has 120 s a day.
MAX_LOAN_S = 75


def plan_run(
    seq: Sequence,
    snapshot: Snapshot | None,
    *,
    preparation_s: float = PREPARATION_S,
    number: int = 0,
) -> BorrowedRun:
    """The run, with time to read the new tokens and to write the reply, within the largest loan."""
    num_read_tokens = 0 if snapshot is None else snapshot.num_tokens
    num_new_tokens = len(seq.prompt_token_ids) - num_read_tokens
    work_s = num_new_tokens / READ_TOKENS_PER_S + seq.sampling.max_new_tokens / WRITE_TOKENS_PER_S
    packed = None if snapshot is None else PackedSnapshot.of(snapshot)
    max_seconds = min(1 + work_s, MAX_LOAN_S - preparation_s)
    form, seq.matcher = None if seq.matcher is None else seq.matcher.form, None
    return BorrowedRun(seq, packed, max_seconds, preparation_s, number, form)


def loan_s(run: BorrowedRun) -> int:
    """The seconds of GPU to ask for."""
    return math.ceil(run.preparation_s + run.max_seconds)


@dataclass(slots=True, eq=False)
class _Entry:
    """A queued or running sequence, and its caller's context, whose GPU quota is charged."""

    seq: Sequence
    context: Context
    is_given_up: bool = False


@dataclass(slots=True)
class HostStates:
    """The sessions' states, for commands of the service that would otherwise ask an engine."""

    snapshots: SnapshotStore
    entries: dict[int, _Entry] = field(default_factory=dict)

    def running_state(self, session_id: str) -> None:
        """None: the states of running sequences are in other processes."""

    def forget(self, session_id: str) -> bool:
        """Drop the session's snapshots, and save none of its running sequences. Returns whether
        it had either.
        """
        had_snapshots = self.snapshots.forget(session_id)
        at_work = [e.seq for e in self.entries.values() if e.seq.session_id == session_id]
        for seq in at_work:
            seq.session_id = None
        return had_snapshots or bool(at_work)


class BorrowingWorker:
    """Implements Worker with one run per sequence.

    Several threads take sequences from the queue; each run's generator belongs to one thread. One
    lock guards everything else.
    """

    def __init__(
        self,
        prepare: Callable[[], Perform],
        flags: StopFlags,
        *,
        max_running: int,
        max_snapshot_bytes: int,
        max_session_snapshots: int = MAX_PER_SESSION,
    ) -> None:
        """`flags` has one flag for each of `max_running` simultaneous runs."""
        self._prepare, self._flags = prepare, flags
        self._on_events: OnEvents = lambda events: None
        self._max_running = max_running
        self._states = HostStates(
            SnapshotStore(max_bytes=max_snapshot_bytes, max_per_session=max_session_snapshots)
        )
        self._line: deque[_Entry] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._is_stopping = False
        self._num_running = 0
        self._has_compiled = False  # the kernels, in a run of any process
        self._memory: tuple[int | None, int | None] = (None, None)

    @property
    def stats(self) -> EngineStats:
        with self._changed:
            snapshots = self._states.snapshots
            return EngineStats(
                self._num_running,
                len(self._line),
                len(snapshots),
                snapshots.num_bytes,
                *self._memory,
            )

    def start(self, *, on_events: OnEvents, on_failure: OnFailure) -> Future[None]:
        """Load the model on a thread; the future is done when runs can be taken."""
        self._on_events = on_events
        ready: Future[None] = Future()
        ready.set_running_or_notify_cancel()

        def begin() -> None:
            try:
                perform = self._prepare()
            except BaseException as error:
                ready.set_exception(error)
                return
            for number in range(self._max_running):
                threading.Thread(target=self._serve, args=(perform, number), daemon=True).start()
            ready.set_result(None)

        threading.Thread(target=begin, name="startup", daemon=True).start()
        return ready

    def add(self, seq: Sequence) -> None:
        """Put the sequence into the queue."""
        seq.reuse_id = None  # only the session's state goes to the process that replies
        with self._changed:
            entry = _Entry(seq, copy_context())
            self._states.entries[seq.seq_id] = entry
            self._line.append(entry)
            self._changed.notify()
            if self._num_running >= self._max_running:
                self._tell_places()

    def abort(self, seq_id: int) -> None:
        """Abort the sequence: at once if it waits, after its next step if it runs."""
        with self._changed:
            entry = self._states.entries.get(seq_id)
            if entry is not None:
                entry.is_given_up = True
                if entry in self._line:
                    self._line.remove(entry)
                    del self._states.entries[seq_id]
                    self._tell_places()

    def call(self, function: Callable[[HostStates], Result]) -> Future[Result]:
        """Run `function` on the sessions' states; the future holds its result or error."""
        future: Future[Result] = Future()
        try:
            with self._changed:
                future.set_result(function(self._states))
        except Exception as error:
            future.set_exception(error)
        return future

    def stop(self, *, timeout_s: float) -> bool:
        """Abort all runs. Returns whether the running ones ended in time."""
        with self._changed:
            self._is_stopping = True
            self._line.clear()
            for entry in self._states.entries.values():
                entry.is_given_up = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._num_running == 0, timeout_s)

    def _serve(self, perform: Perform, number: int) -> None:
        while (entry := self._next()) is not None:
            try:
                entry.context.run(self._run, perform, entry, number)
            except Exception as error:
                logger.warning("a run failed: %s", getattr(error, "title", type(error).__name__))
                self._on_events([Failed(entry.seq.seq_id, Overloaded(sentence_for(error)))])
            with self._changed:
                del self._states.entries[entry.seq.seq_id]
                self._num_running -= 1
                self._changed.notify_all()

    def _next(self) -> _Entry | None:
        """Wait for the first sequence in the queue; None to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._line or self._is_stopping)
            if self._is_stopping:
                return None
            entry = self._line.popleft()
            self._num_running += 1
            self._tell_places()
            return entry

    def _run(self, perform: Perform, entry: _Entry, number: int) -> None:
        self._flags.lower(number)
        with closing(perform(self._planned(entry.seq, number))) as reports:
            for report in reports:
                if entry.is_given_up:
                    if self._is_stopping or entry.seq.session_id is None:
                        return
                    self._flags.raise_for(number)  # and wait for the state
                self._take_in(entry.seq, report)
                self._has_compiled = True

    def _planned(self, seq: Sequence, number: int) -> BorrowedRun:
        with self._changed:
            snapshots = self._states.snapshots
            # A prompt that is scored is read in full: its scores are not in the snapshot.
            origins = () if seq.score_prompt is not None else seq.origins
            found = (snapshots.longest_prefix(origin, seq.packed_prompt) for origin in origins)
            known = [snapshot for snapshot in found if snapshot is not None]
            snapshot = max(known, key=lambda one: one.num_tokens, default=None)
        preparation_s = PREPARATION_S if self._has_compiled else FIRST_PREPARATION_S
        return plan_run(seq, snapshot, preparation_s=preparation_s, number=number)

    def _take_in(self, seq: Sequence, report: Report) -> None:
        """Store the state, then send the events: after the end the next turn may come at once."""
        state = None if report.snapshot is None else report.snapshot.unpacked()
        with self._changed:
            self._memory = report.gpu_memory_bytes, report.peak_gpu_memory_bytes
            is_kept = seq.session_id is not None and not seq.is_aside
            if state is not None and report.snapshot is not None and is_kept:
                assert seq.session_id is not None
                token_ids = report.snapshot.packed_token_ids
                self._states.snapshots.put(seq.session_id, token_ids, state)
            if seq.session_id is not None and any(map(_is_failure, report.events)):
                self._states.snapshots.forget(seq.session_id)  # the fault may be in any of them
        self._on_events(report.events)

    def _tell_places(self) -> None:
        for position, entry in enumerate(self._line, start=1):
            if entry.seq.queue_position != position:
                entry.seq.queue_position = position
                self._on_events([Queued(entry.seq.seq_id, position)])


def _is_failure(event: EngineEvent) -> bool:
    return isinstance(event, Failed) and isinstance(event.error, ReplyFailure)


def sentence_for(error: Exception) -> str:
    """The sentence for a visitor whose reply failed; errors of `spaces` have a title."""
    title, message = getattr(error, "title", ""), str(getattr(error, "message", error)).strip()
    if "quota" in title or "credits" in title:
        return f"the GPU time that Hugging Face lends you is spent for now. {message}"
    if "queue" in title or "client" in title:
        return f"Hugging Face has no GPU to lend at the moment; please try again. {message}"
    return "the GPU was taken away before the reply was complete; please try again"
