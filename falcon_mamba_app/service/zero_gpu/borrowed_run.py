"""A reply in a process that has a GPU for seconds: its input, its output, and its work.

The process is a fork of the server. It is made when a GPU is lent, and ends when the GPU goes to
someone else. Its input and output are pickled. A state is sent once each way, as two blocks of
bytes: tensors would be sent as file descriptors, which stay open as long as the tensor exists.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Ended, EngineEvent, Failed
from falcon_mamba_app.engine.matching import Matcher
from falcon_mamba_app.engine.packing import ID_BYTES
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.engine.states.store import Snapshot
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.protocol import Form
from falcon_mamba_app.settings import EngineLimits

STATES_OF_A_RUN = 2  # at the end of its prompt, and of its reply


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """A tensor's numbers as plain bytes."""

    data: bytes
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> PackedTensor:
        numbers = tensor.contiguous().view(torch.uint8).numpy()
        return cls(numbers.tobytes(), tuple(tensor.shape), tensor.dtype)

    def unpacked(self) -> Tensor:
        # A copy, because bytes are read-only.
        return torch.frombuffer(bytearray(self.data), dtype=self.dtype).view(self.shape)


@dataclass(frozen=True, slots=True)
class PackedSnapshot:
    """A snapshot that can be pickled: both parts of the state, and the tokens it has read."""

    packed_token_ids: bytes
    conv: PackedTensor
    ssm: PackedTensor

    @classmethod
    def of(cls, snapshot: Snapshot) -> PackedSnapshot:
        snapshot.state.wait()
        conv, ssm = (PackedTensor.of(part) for part in (snapshot.state.conv, snapshot.state.ssm))
        return cls(snapshot.packed_token_ids, conv, ssm)

    def unpacked(self) -> State:
        return State(self.conv.unpacked(), self.ssm.unpacked())


@dataclass(frozen=True, slots=True)
class BorrowedRun:
    """The order to the process: one sequence, its best snapshot, and its time limits before and
    after its first step. `number` is the number of its stop flag.
    """

    seq: Sequence
    snapshot: PackedSnapshot | None
    max_seconds: float
    preparation_s: float
    number: int = 0
    form: Form | None = None  # the sequence's matcher cannot be pickled: it is made again


@dataclass(frozen=True, slots=True)
class Report:
    """The process's report after a step. The last one has the state, if the session keeps it: the
    state at the end of the reply, or at the end of the prompt if the run was stopped.
    """

    events: list[EngineEvent]
    gpu_memory_bytes: int | None
    peak_gpu_memory_bytes: int | None
    snapshot: PackedSnapshot | None = None


def limits_of_a_run(limits: EngineLimits, state_bytes: int) -> EngineLimits:
    """Limits for one sequence and the states that it saves. More states would cost GPU time for
    pinning, 14 ms for each state of the 7B.
    """
    ids_bytes = ID_BYTES * (limits.max_prompt_tokens + limits.max_new_tokens)
    needed = STATES_OF_A_RUN * (state_bytes + ids_bytes)
    return replace(limits, max_running=1, snapshot_bytes=min(limits.snapshot_bytes, needed))


class StopFlags:
    """Tells runs in other processes to end: one byte for each simultaneous run, in memory that is
    shared with every later fork.

    Closing a run's generator would end it too, but then it could return nothing more, not even its
    state.
    """

    def __init__(self, num_runs: int) -> None:
        self._flags = mmap.mmap(-1, num_runs)

    def raise_for(self, number: int) -> None:
        self._flags[number] = 1

    def lower(self, number: int) -> None:
        self._flags[number] = 0

    def is_raised(self, number: int) -> bool:
        return self._flags[number] == 1


class Borrower:
    """Performs runs, one at a time, on an engine that it builds at its first run.

    It is made before the fork and holds the model in host memory; only the fork has the GPU.
    """

    def __init__(
        self,
        model: FalconMamba,
        build_engine: Callable[[FalconMamba], Engine],
        flags: StopFlags,
        *,
        make_matcher: Callable[[Form], Matcher],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_matcher = make_matcher
        self._model, self._build_engine = model, build_engine
        self._flags, self._clock = flags, clock
        self._engine: Engine | None = None
        self._is_free = threading.Lock()  # without forks, runs share this object

    def run(self, run: BorrowedRun) -> Generator[Report, None, None]:
        """The reports of the run's steps. Closing it ends the run without its state."""
        # Read once: without forks, the sequence may lose its session meanwhile.
        session_id, origins = run.seq.session_id, run.seq.origins
        with self._is_free:
            self._engine = engine = self._engine or self._build_engine(self._model)
            try:
                if run.snapshot is not None and origins:
                    packed = run.snapshot
                    engine.snapshots.put(origins[0], packed.packed_token_ids, packed.unpacked())
                yield from self._steps(engine, run, session_id)
            finally:
                engine.abort(run.seq.seq_id)
                for origin in origins:
                    engine.snapshots.forget(origin)

    def _steps(
        self, engine: Engine, run: BorrowedRun, session_id: str | None
    ) -> Generator[Report, None, None]:
        seq, is_stopped = run.seq, False
        deadline_s = self._clock() + run.max_seconds
        if run.form is not None:
            seq.matcher = self._make_matcher(run.form)
        engine.add(seq)
        while engine.has_work:
            events = engine.step()
            is_stopped = self._flags.is_raised(run.number)
            if engine.has_work and (is_stopped or self._clock() > deadline_s):
                engine.abort(seq.seq_id)
                # A step in flight may report one more token, perhaps the last one.
                events += engine.step() if engine.has_work else []
                if not (events and isinstance(events[-1], Ended | Failed)):
                    events.append(Ended(seq.seq_id, "length"))
            if engine.has_work:
                yield _report(engine, events)
        # The text first: sending a state takes a while.
        yield _report(engine, events[:-1])
        snapshot = None
        if session_id is not None:
            snapshot = _snapshot_to_keep(engine, seq, session_id, is_stopped=is_stopped)
        yield _report(engine, events[-1:], snapshot)


def _snapshot_to_keep(
    engine: Engine, seq: Sequence, session_id: str, *, is_stopped: bool
) -> PackedSnapshot | None:
    snapshots = engine.snapshots
    if is_stopped:
        # The caller may have seen fewer tokens than the newest state has read.
        snapshot = snapshots.longest_prefix(session_id, seq.packed_prompt)
    else:
        snapshot = snapshots.newest(session_id)
    return None if snapshot is None else PackedSnapshot.of(snapshot)


def _report(
    engine: Engine, events: list[EngineEvent], snapshot: PackedSnapshot | None = None
) -> Report:
    on_gpu = engine.model.device.type == "cuda"
    return Report(
        events,
        torch.cuda.memory_allocated() if on_gpu else None,
        torch.cuda.max_memory_allocated() if on_gpu else None,
        snapshot,
    )
