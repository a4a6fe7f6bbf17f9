"""SQLite: one file that one connection writes to and a few read from.

Write-ahead logging lets readers go on beside the writer. A write takes the file at its beginning
(BEGIN IMMEDIATE), so that it never fails half-way because another process wrote meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool

from falcon_mamba_app.errors import LibraryUnavailable

BUSY_TIMEOUT_S = 5
# File locks and shared memory do not work there as SQLite needs them.
NETWORK_FILE_SYSTEMS = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "lustre", "glusterfs", "beegfs"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.davfs"),
}


def engines(path: Path | None) -> tuple[Engine, Engine]:
    """The writer's engine and the readers'; without a path one database in memory for both."""
    if path is None:
        shared = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        _set_up(shared, "BEGIN IMMEDIATE", "PRAGMA foreign_keys=ON", "PRAGMA secure_delete=ON")
        return shared, shared
    _refuse_network(path)
    os.makedirs(path.parent, mode=0o700, exist_ok=True)
    path.touch(mode=0o600)
    writer, reader = _engine(path, size=1), _engine(path, size=4)
    common = ("PRAGMA foreign_keys=ON", f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1_000}")
    # secure_delete: what is deleted is overwritten.
    ours = (*common, "PRAGMA journal_mode=WAL", "PRAGMA secure_delete=ON")
    _set_up(writer, "BEGIN IMMEDIATE", *ours)
    _set_up(reader, "BEGIN", *common, "PRAGMA query_only=ON", "PRAGMA mmap_size=268435456")
    return writer, reader


class WatchedFile:
    """The database's file, which may go away, or be put back, under a server that runs. SQLite
    would go on writing into the file that it has open, and nobody would see those words again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = self._found()

    def is_another(self) -> bool:
        """Whether another file stands in its place since the last call. Raises OSError where there
        is none.
        """
        before, self._identity = self._identity, self._found()
        return self._identity != before

    def _found(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_dev, status.st_ino


def be_durable(connection: Connection, is_durable: bool) -> None:
    """Before a transaction: whether its commit waits for the disk, or only for the system.

    Either survives the end of this process; only the first one survives a power cut.
    """
    raw: Any = connection.connection.dbapi_connection
    raw.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")


def copy_file(source: Path, target: Path) -> None:
    """A copy of a database that others may be using."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    target.chmod(0o600)


def _engine(path: Path, *, size: int) -> Engine:
    return create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
    )


def _set_up(engine: Engine, begin: str, *pragmas: str) -> None:
    """Let `begin` open transactions instead of the driver, which would open them too late."""

    def connected(raw: sqlite3.Connection, _: Any) -> None:
        raw.isolation_level = None
        for pragma in pragmas:
            raw.execute(pragma)

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def _refuse_network(path: Path) -> None:
    kind = file_system_of(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise LibraryUnavailable(
            f"the folder of the conversations is on a network file system ({kind}), where SQLite"
            " loses data; choose a local one with --data-dir, or PostgreSQL with --database-url"
        )


def file_system_of(path: Path, mounts: str | None = None) -> str:
    """The kind of file system that holds the path, such as "ext4"; "" where nobody knows."""
    try:
        text = Path("/proc/self/mounts").read_text("utf-8") if mounts is None else mounts
    except OSError:
        return ""
    there, found, kind = path.absolute(), -1, ""
    while not there.exists() and there != there.parent and mounts is None:
        there = there.parent
    there = there.resolve() if mounts is None else there
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        mount = Path(fields[1].replace("\\040", " "))
        if there.is_relative_to(mount) and len(mount.parts) >= found:
            found, kind = len(mount.parts), fields[2]
    return kind
