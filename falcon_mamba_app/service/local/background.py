"""Threads for work that may hang, such as asking an object store. They never hold the process's
end; those of the standard library's pools do, until the last of them has returned.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class Background(Executor):
    """A fixed number of threads, started with the first task; tasks begin in their order."""

    def __init__(self, number: int, name: str) -> None:
        self._works: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._works = queue.SimpleQueue()
        self._number, self._name = number, name
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._has_ended = False

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Raises RuntimeError after the end, as the standard library's pools do."""
        future: Future[Any] = Future()
        with self._lock:
            if self._has_ended:
                raise RuntimeError(f"{self._name} takes no more work")
            self._works.put((future, lambda: work(*args, **kwargs)))
            if len(self._threads) < self._number:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:
        """Take no more work, and none of what waits. What runs is left to itself."""
        assert not wait and cancel_futures, "whoever waits here may wait for ever"
        with self._lock:
            self._has_ended = True
        while not self._works.empty():
            waiting = self._works.get()
            if waiting is not None:
                waiting[0].cancel()
        for _ in self._threads:
            self._works.put(None)

    def _run(self) -> None:
        while (waiting := self._works.get()) is not None:
            future, work = waiting
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del waiting, future, work
