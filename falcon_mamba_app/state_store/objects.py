"""The place of the files: get, put, delete and list, on a folder or an object store, by obstore.

A put is atomic: the object is there whole, or not at all. Every call may block, so they belong on
threads. What goes wrong leaves as StoreUnavailable, in a sentence without paths or names.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, from_url

from falcon_mamba_app.errors import SettingsError, StoreUnavailable

MEMORY = "memory:"
SCHEMES = ("s3", "gs", "az")
# A reply waits for a read; an object store that does not answer must not hold it for long.
CLIENT = {"timeout": "30s", "connect_timeout": "5s"}
RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=15)}
# What a killed process leaves of a file it was writing, in a folder.
UNFINISHED, UNFINISHED_S = re.compile(r"#\d+$"), 3_600
# As systems and object stores say it, in lower case; the first that fits is told.
SENTENCES = (
    ("no space left", "its disk is full"),
    ("quota", "its disk is full"),
    ("file too large", "its disk is full"),
    ("read-only file system", "it cannot be written to"),
    ("permission denied", "it cannot be written to, or not be read"),
    ("no such file", "its folder cannot be made"),
    ("not a directory", "its folder is no folder"),
    ("file exists", "its folder is no folder"),
    ("access denied", "it refuses the credentials"),
    ("forbidden", "it refuses the credentials"),
    ("unauthorized", "it refuses the credentials"),
    ("nosuchbucket", "its bucket does not exist"),
    ("connect", "it cannot be reached"),
    ("timed out", "it does not answer in time"),
    ("timeout", "it does not answer in time"),
)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing says of one object."""

    path: str
    nbytes: int
    written_s: float


class StateStore:
    """Objects by path."""

    def __init__(self, objects: Any, place: str) -> None:
        """`objects` is one of obstore's stores; `place` names it for people."""
        self._objects, self.place = objects, place

    def get(self, path: str) -> memoryview:
        """The object's bytes, as they were read. Raises FileNotFoundError, StoreUnavailable."""
        with _told(passes=(FileNotFoundError,)):
            return memoryview(obstore.get(self._objects, path).bytes())

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Write the object, over an older one. Raises StoreUnavailable."""
        with _told():
            obstore.put(self._objects, path, data)

    def delete(self, path: str) -> None:
        """An object that is not there is no error. Raises StoreUnavailable."""
        with contextlib.suppress(FileNotFoundError), _told(passes=(FileNotFoundError,)):
            obstore.delete(self._objects, path)

    def list(self, prefix: str) -> list[StoredObject]:
        """The objects below `prefix`, in no order. Raises StoreUnavailable."""
        with _told():
            return [
                StoredObject(meta["path"], meta["size"], meta["last_modified"].timestamp())
                for chunk in obstore.list(self._objects, prefix=prefix)
                for meta in chunk
            ]


def open_store(place: str) -> StateStore:
    """The store in a folder, which is made if necessary, or at s3://, gs:// or az://.

    An object store's account comes from the environment, as AWS_ACCESS_KEY_ID. Raises SettingsError
    for an address that means nothing, StoreUnavailable for a place that cannot be used.
    """
    if place == MEMORY:
        return StateStore(MemoryStore(), "memory")
    scheme, separator, _ = place.partition("://")
    if separator and scheme not in SCHEMES:
        raise SettingsError(
            f"--state-store is {place!r}; allowed are a folder, s3://, gs://, az://, auto and off"
        )
    with _told():
        if separator:
            options: Any = {**CLIENT, "allow_http": True}  # of a server of one's own
            try:
                objects = from_url(place, client_options=options, retry_config=RETRIES)
            except BaseError as error:
                reason = str(error).partition("\n")[0]
                raise SettingsError(f"--state-store {place}: {reason}") from None
            return StateStore(objects, place)
        folder = Path(place).expanduser().absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(folder)
        return StateStore(LocalStore(folder, automatic_cleanup=True), str(folder))


def _sweep(folder: Path) -> None:
    """Delete what killed processes left unfinished; a new one may still be written."""
    for path in folder.rglob("*#*"):
        with contextlib.suppress(OSError):
            age_s = time.time() - path.stat().st_mtime
            if UNFINISHED.search(path.name) and age_s > UNFINISHED_S:
                path.unlink()


@contextmanager
def _told(*, passes: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Errors leave as StoreUnavailable, but those that the caller handles."""
    try:
        yield
    except passes:
        raise
    except (BaseError, OSError) as error:
        reason = reason_of(error)
        raise StoreUnavailable(f"the store of states cannot be used: {reason}") from error


def reason_of(error: BaseException) -> str:
    """What is wrong with the place, without its paths."""
    told = str(error).lower()
    for words, sentence in SENTENCES:
        if words in told:
            return sentence
    return f"it failed ({type(error).__name__})"
