"""The one thread that owns the device, from loading the model to exit.

Commands come in through an inbox; the events of one step leave together through one callback.
No other thread may touch the engine while this thread lives; `call` runs a function on it.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

import torch

from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import EngineEvent
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states.store import SnapshotStore
from falcon_mamba_app.errors import EngineFailure

logger = logging.getLogger(__name__)

Command = Callable[[Engine], None]
OnEvents = Callable[[list[EngineEvent]], None]
OnFailure = Callable[[EngineFailure], None]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counts after the newest step."""

    running: int = 0
    waiting: int = 0
    snapshots: int = 0
    snapshot_bytes: int = 0
    gpu_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None


class SessionStates(Protocol):
    """The part of an Engine that is asked about sessions: to export, import, draw and drop them."""

    @property
    def snapshots(self) -> SnapshotStore: ...
    def running_state(self, session_id: str) -> torch.Tensor | None: ...
    def forget(self, session_id: str) -> bool: ...


class Worker(Protocol):
    """Takes sequences and reports their events: EngineWorker is one implementation.

    `on_events` gets the events of each step. `on_failure` gets the one error after which nothing
    more can be generated. Both are called on the worker's thread and must not block.
    """

    @property
    def stats(self) -> EngineStats: ...
    def start(self, *, on_events: OnEvents, on_failure: OnFailure) -> Future[None]: ...
    def add(self, seq: Sequence) -> None: ...
    def abort(self, seq_id: int) -> None: ...
    def call(self, function: Callable[[SessionStates], Result]) -> Future[Result]: ...
    def stop(self, *, timeout_s: float) -> bool: ...


class _Question(Generic[Result]):
    """A command whose caller waits for the result."""

    def __init__(self, function: Callable[[Engine], Result]) -> None:
        self._function = function
        self.future: Future[Result] = Future()

    def __call__(self, engine: Engine) -> None:
        if not self.future.set_running_or_notify_cancel():
            return  # the caller has cancelled
        try:
            self.future.set_result(self._function(engine))
        except Exception as error:
            self.future.set_exception(error)

    def refuse(self) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(EngineFailure("the engine has stopped"))


class EngineWorker:
    """Runs an engine that `make_engine` builds on the worker's own thread."""

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._make_engine = make_engine
        self._inbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._ready: Future[None] = Future()
        self._thread: threading.Thread | None = None
        self._has_ended = False
        self.stats = EngineStats()

    def start(self, *, on_events: OnEvents, on_failure: OnFailure) -> Future[None]:
        """Start the thread; the future is done when the model is loaded, or holds the error."""
        run = partial(self._run, on_events, on_failure)
        # A daemon: the end of the process must not wait for a download or a long step.
        self._thread = threading.Thread(target=run, name="engine", daemon=True)
        self._thread.start()
        return self._ready

    def add(self, seq: Sequence) -> None:
        """Hand a sequence to the engine."""
        self._inbox.put(lambda engine: engine.add(seq))

    def abort(self, seq_id: int) -> None:
        """Free the sequence's slot before the next step. An ended sequence is no error."""
        self._inbox.put(lambda engine: engine.abort(seq_id))

    def call(self, function: Callable[[Engine], Result]) -> Future[Result]:
        """Run `function` between two steps. The future holds its result or error, or raises
        EngineFailure once the thread has ended.
        """
        question = _Question(function)
        self._inbox.put(question)
        if self._has_ended:
            self._refuse_all()
        return question.future

    def stop(self, *, timeout_s: float) -> bool:
        """End the thread after the current step. Returns whether it ended in time."""
        self._inbox.put(None)
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self, on_events: OnEvents, on_failure: OnFailure) -> None:
        self._ready.set_running_or_notify_cancel()  # from here on it cannot be cancelled
        try:
            self._work(on_events, on_failure)
        finally:
            # In this order: a later caller either sees the flag or is refused here.
            self._has_ended = True
            self._refuse_all()

    def _work(self, on_events: OnEvents, on_failure: OnFailure) -> None:
        try:
            engine = self._make_engine()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        try:
            while self._obey(engine):
                events = engine.step()
                self.stats = _stats(engine)
                if events:
                    on_events(events)
        except Exception as error:
            logger.exception("the engine failed")
            self.stats = EngineStats()
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            on_failure(EngineFailure(f"the engine failed ({reason}); restart the server"))
            self._serve_snapshots(engine)

    def _refuse_all(self) -> None:
        """The thread ends: give every waiting caller an error."""
        with contextlib.suppress(queue.Empty):
            while True:
                command = self._inbox.get_nowait()
                if isinstance(command, _Question):
                    command.refuse()

    def _serve_snapshots(self, engine: Engine) -> None:
        """After a failure: no more steps, but states in host memory can still be fetched."""
        while (command := self._inbox.get()) is not None:
            with contextlib.suppress(Exception):
                command(engine)

    def _obey(self, engine: Engine) -> bool:
        """Carry out all commands, waiting for one when there is no other work; False to stop."""
        while True:
            is_idle = not engine.has_work
            if is_idle:
                self.stats = _stats(engine)
            try:
                command = self._inbox.get(block=is_idle)
            except queue.Empty:
                return True
            if command is None:
                return False
            command(engine)


def _stats(engine: Engine) -> EngineStats:
    on_gpu = engine.model.device.type == "cuda"
    return EngineStats(
        running=engine.num_running,
        waiting=engine.num_waiting,
        snapshots=len(engine.snapshots),
        snapshot_bytes=engine.snapshots.num_bytes,
        gpu_memory_bytes=torch.cuda.memory_allocated() if on_gpu else None,
        peak_gpu_memory_bytes=torch.cuda.max_memory_allocated() if on_gpu else None,
    )
