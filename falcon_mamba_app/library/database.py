"""One database, and the threads on which its blocking work runs.

Writes go through one thread, in the order they were asked for; reads have a few of their own. No
statement stands here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine

import falcon_mamba_app.library.postgres as postgres
import falcon_mamba_app.library.sqlite as sqlite
import falcon_mamba_app.library.wiping as wiping
from falcon_mamba_app.errors import LibraryUnavailable
from falcon_mamba_app.library.failures import told_in_a_sentence
from falcon_mamba_app.library.migrate import bring_up_to_date
from falcon_mamba_app.library.writers import FileWriter, OnlyWriter, PostgresWriter, Writer

P = ParamSpec("P")
T = TypeVar("T")

FILE_NAME = "conversations.db"
NUM_READERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where conversations are kept: in a folder, in PostgreSQL, or, with neither, in memory."""

    folder: Path | None = None
    url: str | None = None

    @property
    def file(self) -> Path | None:
        return None if self.folder is None or self.url else self.folder / FILE_NAME


class Database:
    """Raises LibraryUnavailable wherever the database fails, and goes on once it works again."""

    def __init__(
        self, writer: Engine, reader: Engine, this: Writer, file: sqlite.WatchedFile | None
    ) -> None:
        """`this` is how other processes know that this one lives."""
        self.this, self._file = this, file
        self.is_postgres = writer.dialect.name == "postgresql"
        self._writer, self._reader = writer, reader
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="library-writer")
        # One connection for both is one thread for both.
        self._reading = (
            self._writing
            if reader is writer
            else ThreadPoolExecutor(NUM_READERS, thread_name_prefix="library-reader")
        )

    @classmethod
    def open(cls, place: Place) -> Database:
        """Blocking. Raises LibraryUnavailable, and SettingsError for a URL that is none."""
        with told_in_a_sentence():
            if place.url:
                writer, reader = postgres.engines(place.url)
            else:
                writer, reader = sqlite.engines(place.file)
            with ExitStack() as opened:
                opened.callback(writer.dispose)
                opened.callback(reader.dispose)
                this = PostgresWriter(writer) if place.url else _writer_of(place.file)
                opened.callback(this.leave)
                bring_up_to_date(writer, place.file)
                opened.pop_all()
        file = None if place.file is None else sqlite.WatchedFile(place.file)
        return cls(writer, reader, this, file)

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run in one transaction. A caller that is cancelled does not undo it."""
        return await self._run(self._writing, lambda: self._write(work, args, kwargs, False))

    async def write_durably(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same; it has reached the disk when this returns."""
        return await self._run(self._writing, lambda: self._write(work, args, kwargs, True))

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._run(self._reading, lambda: self._read(work, args, kwargs))

    async def wipe(self) -> None:
        """Erase what a deletion left of the words. PostgreSQL does that by itself."""
        if self.is_postgres:
            return
        for index in wiping.INDEXES:
            is_first = True
            while await self.write(wiping.merge, index, is_first=is_first):
                is_first = False
        await self._run(self._writing, self._empty_log)

    def close(self) -> None:
        """Finish the requested writes, and close the database. Blocking."""
        self._writing.shutdown()
        self._reading.shutdown()
        self._writer.dispose()
        self._reader.dispose()
        self.this.leave()

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            running = threads.submit(work)
        except RuntimeError:
            raise LibraryUnavailable("the conversations' database has been closed") from None
        return await asyncio.wrap_future(running)

    def _empty_log(self) -> None:
        with told_in_a_sentence(), self._writer.connect() as connection:
            wiping.empty_log(connection)

    def _write(
        self, work: Callable[..., T], args: Any, kwargs: dict[str, Any], is_durable: bool
    ) -> T:
        with told_in_a_sentence(), self._connected(self._writer) as connection:
            if not self.is_postgres:
                sqlite.be_durable(connection, is_durable)
            with connection.begin():
                return work(connection, *args, **kwargs)

    def _read(self, work: Callable[..., T], args: Any, kwargs: dict[str, Any]) -> T:
        reader = self._reader
        with told_in_a_sentence(), self._connected(reader) as connection, connection.begin():
            return work(connection, *args, **kwargs)

    def _connected(self, engine: Engine) -> Connection:
        """A connection to the file that is in its place now. Raises OSError where there is none."""
        if self._file is not None and self._file.is_another():
            self._writer.dispose()
            self._reader.dispose()
        return engine.connect()


def _writer_of(file: Path | None) -> Writer:
    return OnlyWriter() if file is None else FileWriter(file)
