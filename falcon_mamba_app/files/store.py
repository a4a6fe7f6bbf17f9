"""Keeps files for their owners: in a folder, where they outlive the process, or in memory.

Each file has its facts and its content. A file that is being written is not listed until it is
complete; after a restart its writer finds what it has. It knows no HTTP, and purposes are names.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from falcon_mamba_app.errors import InvalidRequest, NotFound, StoreUnavailable

logger = logging.getLogger(__name__)

MAX_FILES = 1_000  # of one owner
MAX_OWNER_BYTES = 512 * 2**20
MAX_BYTES_IN_MEMORY = 256 * 2**20  # of all owners without a folder
LASTS_IN_MEMORY_S = 48 * 3_600  # unless its owner says otherwise
FACTS, CONTENT = ".json", ".data"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """The facts of one file."""

    id: str
    owner: str
    name: str
    purpose: str
    num_bytes: int
    created_s: int
    expires_s: int | None = None
    is_complete: bool = True


class FileStore:
    """One place for files. Its methods block as long as the disk does."""

    def __init__(
        self,
        folder: Path | None,
        *,
        copy: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Without a folder everything is in memory. A folder is made with the first file, and
        belongs to one process; `copy` is that server's name among several, told by its ids.
        """
        self._folder, self._clock, self._tag = folder, clock, f"-{copy}" if copy else ""
        self._max_bytes = MAX_BYTES_IN_MEMORY if folder is None else None
        self._files: dict[str, StoredFile] = {}
        self._contents: dict[str, bytearray] = {}
        if folder is not None:
            self._files = {file.id: file for file in _files_in(folder)}

    def add(
        self, owner: str, data: bytes, *, name: str, purpose: str, lasts_s: int | None = None
    ) -> StoredFile:
        """Keep a file, for so long or until it is removed. Raises InvalidRequest where there is no
        room, StoreUnavailable.
        """
        file = self._new(owner, name, purpose, num_bytes=len(data))
        if lasts_s is not None:
            file = replace(file, expires_s=file.created_s + lasts_s)
        self._write(file, data)
        return file

    def begin(self, owner: str, *, name: str, purpose: str) -> StoredFile:
        """A file to be written with `append` and closed with `complete`."""
        file = replace(self._new(owner, name, purpose), is_complete=False)
        self._write(file, b"")
        return file

    def append(self, file_id: str, data: bytes) -> None:
        """Raises StoreUnavailable, and InvalidRequest where the owner has no more room."""
        file = self._files[file_id]
        self._refuse_without_room(file.owner, len(data))
        try:
            if self._folder is None:
                self._contents[file_id] += data
            else:
                with open(self._path(file_id, CONTENT), "ab") as content:
                    content.write(data)
        except OSError as error:
            raise _unavailable(error) from error
        self._files[file_id] = replace(file, num_bytes=file.num_bytes + len(data))

    def complete(self, file_id: str) -> StoredFile:
        """Show the file to its owner from now on. Raises StoreUnavailable."""
        file = replace(self._files[file_id], is_complete=True)
        self._write(file, None)
        return file

    def get(self, owner: str, file_id: str) -> StoredFile:
        """Raises NotFound, for another owner's too."""
        self._drop_expired()
        file = self._files.get(file_id)
        if file is None or file.owner != owner:
            raise NotFound(f"there is no file {file_id[:80]}; GET /v1/files lists yours")
        return file

    def read(self, owner: str, file_id: str) -> bytes:
        """The content. Raises NotFound, StoreUnavailable."""
        self.get(owner, file_id)
        if self._folder is None:
            return bytes(self._contents[file_id])
        try:
            return self._path(file_id, CONTENT).read_bytes()
        except OSError as error:
            raise _unavailable(error) from error

    def remove(self, owner: str, file_id: str) -> None:
        """Raises NotFound."""
        self.get(owner, file_id)
        self._drop(file_id)

    def remove_all(self, owner: str) -> int:
        """Remove all files of the owner, also those being written; returns how many."""
        own = [file.id for file in self._files.values() if file.owner == owner]
        for file_id in own:
            self._drop(file_id)
        return len(own)

    def of(self, owner: str) -> list[StoredFile]:
        """The owner's complete files, the newest first."""
        self._drop_expired()
        own = [file for file in self._files.values() if file.owner == owner and file.is_complete]
        return sorted(own, key=lambda file: (file.created_s, file.id), reverse=True)

    def _new(self, owner: str, name: str, purpose: str, *, num_bytes: int = 0) -> StoredFile:
        self._drop_expired()
        num_own = sum(file.owner == owner for file in self._files.values())
        if num_own >= MAX_FILES:
            raise InvalidRequest(
                f"you have {num_own} files here, the most this server keeps; delete some",
                param="file",
            )
        self._refuse_without_room(owner, num_bytes)
        created_s = int(self._clock())
        return StoredFile(
            id=f"file_{secrets.token_hex(12)}{self._tag}",
            owner=owner,
            name=name,
            purpose=purpose,
            num_bytes=num_bytes,
            created_s=created_s,
            expires_s=created_s + LASTS_IN_MEMORY_S if self._folder is None else None,
        )

    def _refuse_without_room(self, owner: str, num_bytes: int) -> None:
        own = sum(file.num_bytes for file in self._files.values() if file.owner == owner)
        if own + num_bytes > MAX_OWNER_BYTES:
            raise InvalidRequest(
                f"your files take {own:,} bytes and {num_bytes:,} more would come; this server"
                f" keeps {MAX_OWNER_BYTES:,} of one caller: delete some",
                param="file",
            )
        taken = sum(file.num_bytes for file in self._files.values())
        if self._max_bytes is not None and taken + num_bytes > self._max_bytes:
            raise InvalidRequest(
                f"all callers' files take {taken:,} bytes of memory and {num_bytes:,} more would"
                f" come; this server keeps {self._max_bytes:,}: try again later",
                param="file",
            )

    def _write(self, file: StoredFile, data: bytes | None) -> None:
        """Keep the facts, and the content unless it is there already."""
        if self._folder is None:
            if data is not None:
                self._contents[file.id] = bytearray(data)
        else:
            try:
                if data is not None:
                    write_whole(self._path(file.id, CONTENT), data)
                write_whole(self._path(file.id, FACTS), json.dumps(asdict(file)).encode())
            except OSError as error:
                raise _unavailable(error) from error
        self._files[file.id] = file

    def _drop_expired(self) -> None:
        now_s = self._clock()
        for file in list(self._files.values()):
            if file.expires_s is not None and file.expires_s <= now_s:
                self._drop(file.id)

    def _drop(self, file_id: str) -> None:
        self._files.pop(file_id)
        self._contents.pop(file_id, None)
        if self._folder is not None:
            for ending in (FACTS, CONTENT):
                self._path(file_id, ending).unlink(missing_ok=True)

    def _path(self, file_id: str, ending: str) -> Path:
        assert self._folder is not None, "a store in memory has no paths"
        return self._folder / f"{file_id}{ending}"


def write_whole(path: Path, data: bytes) -> None:
    """Write the whole file or nothing of it, readable by its owner only. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    unfinished.replace(path)


def _files_in(folder: Path) -> list[StoredFile]:
    """The files of an earlier process. What cannot be read is left where it is, with a warning."""
    found = []
    for path in sorted(folder.glob(f"*{FACTS}")):
        try:
            file = StoredFile(**json.loads(path.read_text("utf-8")))
            size = path.with_suffix(CONTENT).stat().st_size
            found.append(replace(file, id=path.stem, num_bytes=size))
        except (OSError, ValueError, TypeError) as error:
            logger.warning("a kept file cannot be read: %s (%s)", path, type(error).__name__)
    return found


def _unavailable(error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"files cannot be kept just now ({error.strerror}); try again later")
