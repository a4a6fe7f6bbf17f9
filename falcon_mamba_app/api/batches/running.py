"""Answers the requests of batches in the background: a few at a time, behind everybody's replies.

A batch that is kept on a disk goes on after a restart with what has no answer yet. What the server
cannot do just now (limits, a full queue) is tried again later and is no failure of a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from falcon_mamba_app.api.batches.lines import (
    Line,
    answer_line,
    answered_in,
    requests_in,
    unanswered_line,
)
from falcon_mamba_app.api.batches.record import Batch, Batches
from falcon_mamba_app.errors import (
    EngineFailure,
    FalconMambaError,
    NotFound,
    NotReady,
    Overloaded,
    TooManyRequests,
)
from falcon_mamba_app.files.store import FileStore
from falcon_mamba_app.http.errors import error_body, presentable

logger = logging.getLogger(__name__)

MAX_WAIT_S = 30.0
LATER = (Overloaded, NotReady, TooManyRequests)

# The whole answer to one body of an endpoint. Raises what an HTTP request would be refused with.
Answering = Callable[[str, bytes], Awaitable[dict[str, Any]]]


class Places:
    """How many requests of all batches are answered at the same time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.free = asyncio.Semaphore(number)


class Run:
    """One batch being answered."""

    def __init__(
        self, batch: Batch, batches: Batches, files: FileStore, answering: Answering, places: Places
    ) -> None:
        self._batch, self._batches, self._files = batch, batches, files
        self._answering, self._places = answering, places
        self._lines: Iterator[Line] = iter(())
        self._has_expired = False

    async def run(self) -> None:
        """Up to the end of the batch. If it is cancelled, everything answered so far is kept; a
        failure of the engine leaves the rest to the next process.
        """
        batch = self._batch
        try:
            if not await self._begin():
                return
            async with asyncio.TaskGroup() as group:
                for _ in range(self._places.number):
                    group.create_task(self._answer_lines())
            batch.become("finalizing")
            await self._end("expired" if self._has_expired else "completed")
        except* EngineFailure:
            logger.warning("batch %s waits for the next start of the server", batch.id)
        except* FalconMambaError as group_error:
            error = group_error.exceptions[0]
            batch.errors = [{"code": "failed", "message": str(error), "param": None, "line": None}]
            batch.become("failed")
            await self._end("failed")

    async def _begin(self) -> bool:
        """Read the input and what has been answered. Returns whether there is something to do."""
        batch = self._batch
        data = await asyncio.to_thread(self._files.read, batch.owner, batch.input_file_id)
        lines, batch.errors = await asyncio.to_thread(requests_in, data, batch.endpoint)
        if batch.errors:
            batch.become("failed")
            self._batches.keep(batch)
            return False
        answered = await asyncio.to_thread(self._written, batch.output_id)
        failed = await asyncio.to_thread(self._written, batch.error_id)
        done = answered | failed
        batch.total, batch.completed, batch.failed = len(lines), len(answered), len(failed)
        self._lines = iter([line for line in lines if line.custom_id not in done])
        batch.become("in_progress")
        self._batches.keep(batch)
        return True

    def _written(self, file_id: str | None) -> set[str]:
        """The custom_ids in a file of results; a line that a crash has cut is closed."""
        if file_id is None:
            return set()
        data = self._files.read(self._batch.owner, file_id)
        if data and not data.endswith(b"\n"):
            self._files.append(file_id, b"\n")
        return answered_in(data)

    async def _answer_lines(self) -> None:
        for line in self._lines:
            if time.time() >= self._batch.expires_s:
                self._has_expired = True
                self._write(unanswered_line(line, "batch_expired", "24 hours were over"), False)
            else:
                await self._answer(line)

    async def _answer(self, line: Line) -> None:
        """Write the answer to one request, or why there is none. Raises EngineFailure."""
        while True:
            try:
                async with self._places.free:
                    body = await self._answering(self._batch.endpoint, line.body)
            except LATER as error:
                await asyncio.sleep(min(getattr(error, "retry_after_s", 1.0), MAX_WAIT_S))
                continue
            except EngineFailure:
                raise
            except Exception as raised:
                told = presentable(raised)
                self._write(answer_line(line, told.http_status, error_body(told)), False)
            else:
                self._write(answer_line(line, 200, body), True)
            return

    def _write(self, data: bytes, is_answer: bool) -> None:
        """Add a line to the results or to the errors. Raises StoreUnavailable, InvalidRequest."""
        batch = self._batch
        kind = "output" if is_answer else "error"
        file_id: str | None = getattr(batch, f"{kind}_id")
        if file_id is None:
            name = f"{batch.id}_{kind}.jsonl"
            file_id = self._files.begin(batch.owner, name=name, purpose="batch_output").id
            setattr(batch, f"{kind}_id", file_id)
        self._files.append(file_id, data)
        batch.completed += is_answer
        batch.failed += not is_answer
        self._batches.keep(batch)

    async def _end(self, status: Any) -> None:
        """Close the results; then the batch is over."""
        batch = self._batch
        for file_id in (batch.output_id, batch.error_id):
            if file_id is not None:
                with contextlib.suppress(FalconMambaError, KeyError):
                    self._files.complete(file_id)
        batch.become(status)
        self._batches.keep(batch)


class Runs:
    """The batches in progress, each in a task of its own."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, batch: Batch, batches: Batches, files: FileStore, answering: Answering) -> None:
        """Begin, or go on with, a batch."""
        run = Run(batch, batches, files, answering, self._places)
        task = asyncio.create_task(run.run())
        self._tasks[batch.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(batch.id, None))

    async def cancel(self, batch: Batch, batches: Batches, files: FileStore) -> None:
        """End the batch now; its results so far are kept."""
        batch.become("cancelling")
        await self._stopped(batch.id)
        for file_id in (batch.output_id, batch.error_id):
            if file_id is not None:
                with contextlib.suppress(NotFound, KeyError):
                    files.complete(file_id)
        batch.become("cancelled")
        batches.keep(batch)

    async def close(self) -> None:
        """Stop all; those on a disk go on after the next start."""
        for batch_id in list(self._tasks):
            await self._stopped(batch_id)

    async def _stopped(self, batch_id: str) -> None:
        task = self._tasks.get(batch_id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
