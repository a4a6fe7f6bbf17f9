"""A small text file of secrets that several processes read and change: whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from falcon_mamba_app.errors import SettingsError

Value = TypeVar("Value")

MAX_FILE_BYTES = 10_000_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def checked_name(name: str, what: str) -> str:
    """The name of a user or a key. Raises SettingsError."""
    if NAME.fullmatch(name) is None:
        raise SettingsError(
            f"{name[:80]!r} is no name of a {what}: 1 to 64 letters, digits, '.', '_', '@' and '-',"
            " the first one a letter or digit"
        )
    return name


class WatchedFile(Generic[Value]):
    """A file's parsed content, read again when the file has changed. No file is an empty text."""

    def __init__(self, path: Path, parse: Callable[[str], Value]) -> None:
        """Raises SettingsError for a file that cannot be read."""
        self.path = path
        self._parse = parse
        self._seen: tuple[int, ...] | None = None
        self._value = self._read()

    @property
    def value(self) -> Value:
        """The content now. Raises SettingsError for a file that has become unreadable: whoever
        cannot be checked is not let in.
        """
        if self._look() != self._seen:
            self._value = self._read()
        return self._value

    def _look(self) -> tuple[int, ...]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unreadable(error) from None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> Value:
        seen = self._look()
        if seen and seen[1] > MAX_FILE_BYTES:
            raise SettingsError(
                f"{self.path} has {seen[1]} bytes; at most {MAX_FILE_BYTES} are read"
            )
        try:
            text = self.path.read_text("utf-8") if seen else ""
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from None
        value = self._parse(text)
        self._seen = seen
        return value

    def _unreadable(self, error: Exception) -> SettingsError:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        return SettingsError(f"{self.path} cannot be read: {reason}")


@contextmanager
def changing(path: Path) -> Iterator[Callable[[str], None]]:
    """Hold the file's lock; the yielded function replaces the whole content, for the owner alone.

    Raises SettingsError where the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.parent / f".{path.name}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lambda text: _replace(path, text)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None


def _replace(path: Path, text: str) -> None:
    # mkstemp's files are readable by their owner alone.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
