"""The books that are being read now, each in a task of its own, and how they end.

However it ends, what was read is kept: the state in the service, the rest in the bookcase.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace

from falcon_mamba_app.books.bookcase import Bookcase
from falcon_mamba_app.books.reading import Progress, Reading, sentence_for
from falcon_mamba_app.books.records import Book, Status
from falcon_mamba_app.errors import EngineFailure, FalconMambaError, NotFound
from falcon_mamba_app.protocol import GenerationService

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reader:
    """The caller for whom a book is read: their share of the service, and their token counter."""

    line: str = ""
    weight: float = 1.0
    counts: Callable[[int], None] = lambda num_tokens: None


@dataclass(slots=True)
class _AtWork:
    reading: Reading
    task: asyncio.Task[None]


class Desk:
    """Books by their ids, while they are read."""

    def __init__(self, service: GenerationService) -> None:
        self._service = service
        self._at_work: dict[str, _AtWork] = {}

    def __contains__(self, book_id: str) -> bool:
        return book_id in self._at_work

    async def read(
        self,
        case: Bookcase,
        book: Book,
        ids: array[int],
        after: int,
        reader: Reader,
        *,
        base: str | None = None,
    ) -> Book:
        """Begin to read, from where the book's state is, or else that of `base`, a book that
        begins with the same ids; returns at once.
        """
        reading = Reading(
            self._service,
            book.id,
            ids,
            after=after,
            owner=f"book {reader.line}",
            weight=reader.weight,
            keeps_state=case.is_lasting,
            counts=reader.counts,
            num_read=book.num_read,
            begins_from=base,
        )
        book = await case.put(book)
        task = asyncio.create_task(self._follow(case, book, reading, ids))
        self._at_work[book.id] = _AtWork(reading, task)
        return book

    def progress(self, book_id: str) -> Progress | None:
        at_work = self._at_work.get(book_id)
        return None if at_work is None else at_work.reading.progress()

    async def stop(self, book_id: str) -> None:
        """Return when the part that is being read is read, and the book is kept."""
        at_work = self._at_work.get(book_id)
        if at_work is not None:
            at_work.reading.stop()
            await asyncio.wait({at_work.task})

    async def drop(self, book_id: str) -> None:
        """End at once; the book is about to be deleted."""
        at_work = self._at_work.get(book_id)
        if at_work is not None:
            at_work.task.cancel()
            await asyncio.wait({at_work.task})

    async def close(self) -> None:
        """End all at once."""
        for book_id in list(self._at_work):
            await self.drop(book_id)

    async def _follow(self, case: Bookcase, book: Book, reading: Reading, ids: array[int]) -> None:
        """Read, and keep how it ended."""
        error = ""
        status: Status
        try:
            await reading.run()
            status = "ready" if reading.num_read == len(ids) else "stopped"
        except (asyncio.CancelledError, EngineFailure):  # the server stops; `resume` reads it on
            status = "interrupted"
        except Exception as failure:
            status, error = "failed", sentence_for(failure)
        try:
            await self._keep(case, book, reading, status=status, error=error, ids=ids)
        except NotFound:  # it was deleted meanwhile
            self._service.forget(book.id)
        except FalconMambaError as failure:
            logger.warning("a book's end could not be kept: %s", failure)
        finally:
            self._at_work.pop(book.id, None)

    async def _keep(
        self,
        case: Bookcase,
        book: Book,
        reading: Reading,
        *,
        status: Status,
        error: str,
        ids: array[int],
    ) -> None:
        num_read = reading.num_read
        if case.is_lasting and num_read and status != "interrupted":
            await self._service.pin_state(book.id, ids[:num_read])
        known = await case.get(book.id)  # it may have another name by now
        seconds = book.seconds + reading.progress().seconds
        kept = replace(known, status=status, error=error, num_read=num_read, seconds=seconds)
        await case.put(kept)
        logger.info("a book: %d of %d tokens read, %s", num_read, len(ids), status)
