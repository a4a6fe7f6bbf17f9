"""A stand-in for what ZeroGPU does with a decorated generator, on a machine without one.

Like Hugging Face's `spaces` it forks a process for a call, or takes up an idle one; arguments and
everything yielded are pickled through pipes; a closed generator is told to the process by an event,
which it looks at after its next yield; a spent quota is an error with a title.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

FORK = multiprocessing.get_context("fork")


class Refused(Exception):
    """What `spaces` raises, a gradio.Error, has a title beside its message."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(message)
        self.title, self.message = title, message


@dataclass
class Yielded:
    value: Any


@dataclass
class Ended:
    error: str | None = None


class _Process:
    def __init__(self, task: Callable[..., Any]) -> None:
        self.asked, self.told = FORK.SimpleQueue(), FORK.SimpleQueue()
        self.stop = FORK.Event()
        self.process = FORK.Process(target=self._work, args=(task,), daemon=True)
        self.process.start()

    def _work(self, task: Callable[..., Any]) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            arguments = self.asked.get()
            self.stop.clear()
            generator = task(*arguments)
            try:
                for value in generator:
                    if self.stop.is_set():
                        generator.close()
                        break
                    self.told.put(Yielded(value))
                self.told.put(Ended())
            except Exception as error:
                self.told.put(Ended(repr(error)))

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        for queue in (self.asked, self.told):
            queue.close()


class ForkedGpu:
    """`lend` is the decorator. `refusal` refuses the next calls; `keeps` reuses idle processes."""

    def __init__(self, *, keeps: bool = True) -> None:
        self.keeps = keeps
        self.refusal: Refused | None = None
        self.num_forks = 0
        self._idle: list[_Process] = []
        self._busy: list[_Process] = []

    def lend(self, task: Callable[..., Any]) -> Callable[..., Any]:
        def lent(*arguments: Any) -> Generator[Any, None, None]:
            if self.refusal is not None:
                raise self.refusal
            process = self._take(task)
            process.asked.put(arguments)
            try:
                yield from self._values(process)
            except GeneratorExit:
                process.stop.set()
                while isinstance(_receive(process), Yielded):
                    pass
                raise
            finally:
                self._give_back(process)

        return lent

    def close(self) -> None:
        for process in (*self._idle, *self._busy):
            process.end()

    def kill(self) -> None:
        """Take the GPU away from whoever has it."""
        for process in self._busy:
            pid = process.process.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    def _values(self, process: _Process) -> Generator[Any, None, None]:
        while isinstance(told := _receive(process), Yielded):
            yield told.value
        if told.error is not None:
            raise Refused("ZeroGPU worker error", told.error)

    def _take(self, task: Callable[..., Any]) -> _Process:
        if self._idle:
            process = self._idle.pop()
        else:
            process = _Process(task)
            self.num_forks += 1
        self._busy.append(process)
        return process

    def _give_back(self, process: _Process) -> None:
        self._busy.remove(process)
        if self.keeps and process.process.is_alive():
            self._idle.append(process)
        else:
            process.end()


def _receive(process: _Process) -> Yielded | Ended:
    """What the process tells next, or that it is gone."""
    with contextlib.suppress(EOFError):
        while process.process.is_alive() or not process.told.empty():
            reader: Any = process.told
            if reader._reader.poll(0.01):
                told: Yielded | Ended = process.told.get()
                return told
    return Ended("GPU task aborted")
