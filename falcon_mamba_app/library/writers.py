"""Who is writing: each process holds a lock while it lives, and its replies carry its name.

The system lets go of the lock when the process ends, however it ends. So a reply whose writer holds
none is broken off, and everybody sees it at once; nobody waits for a time to pass. SQLite's writers
lock a file each beside the database, PostgreSQL's hold an advisory lock with their connection.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, event, text

GENERATION = re.compile(r"gen_([0-9a-f]{16})_[0-9a-f]{32}")


class Writer(Protocol):
    """One process that writes; `name` stands in the generations of its replies."""

    name: str

    def is_gone(self, connection: Connection, other: str) -> bool:
        """Whether the other writer's process has ended. Within a transaction."""

    def leave(self) -> None:
        """Let go of the lock: what is not finished by now is broken off. A second call does
        nothing.
        """


def new_generation(writer: Writer) -> str:
    """A name for one writing, which nobody guesses."""
    return f"gen_{writer.name}_{secrets.token_hex(16)}"


def writer_of(generation: str) -> str:
    """The writer under this name; "" if a version of this app made it that did not say."""
    found = GENERATION.fullmatch(generation)
    return found[1] if found else ""


class OnlyWriter:
    """The writer of a database in memory, which no other process sees."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)

    def is_gone(self, connection: Connection, other: str) -> bool:
        return other != self.name

    def leave(self) -> None:
        return None


class FileWriter:
    """A locked file beside the database. A process forked from this one holds the lock too."""

    def __init__(self, database: Path) -> None:
        """Deletes what killed processes have left. Raises OSError."""
        self._database = database
        self.name = secrets.token_hex(8)
        self._descriptor: int | None = _locked_file(self._path_of(self.name))
        for path in database.parent.glob(self._path_of("*").name):
            if path != self._path_of(self.name):
                _unlink_unless_locked(path)

    def is_gone(self, connection: Connection, other: str) -> bool:
        if other == self.name:
            return False
        return _unlink_unless_locked(self._path_of(other))

    def leave(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._path_of(self.name).unlink(missing_ok=True)
            os.close(descriptor)

    def _path_of(self, name: str) -> Path:
        return self._database.with_name(f"{self._database.name}.writer-{name}")


class PostgresWriter:
    """An advisory lock of the connection that writes; a new connection takes it again."""

    def __init__(self, engine: Engine) -> None:
        self.name = secrets.token_hex(8)
        event.listen(engine, "connect", self._hold)

    def is_gone(self, connection: Connection, other: str) -> bool:
        if other == self.name:
            return False
        tried = text("SELECT pg_try_advisory_xact_lock(:key)")
        return bool(connection.execute(tried, {"key": _key(other)}).scalar_one())

    def leave(self) -> None:
        """The lock goes with the connection."""

    def _hold(self, raw: Any, _: Any) -> None:
        # Shared: it does not wait for the connection that was lost, if the server has it still.
        raw.execute(f"SELECT pg_advisory_lock_shared({_key(self.name)})")
        raw.commit()


def _locked_file(path: Path) -> int:
    """A new file, locked; another process may have deleted it before it was."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _unlink_unless_locked(path: Path) -> bool:
    """Whether nobody holds the file; it is deleted then."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _key(name: str) -> int:
    """The name as PostgreSQL's number of a lock, which has a sign."""
    return int.from_bytes(bytes.fromhex(name or "00"), "big", signed=True)
