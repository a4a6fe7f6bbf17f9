"""Files of compiled kernels on disk: sealed when written, checked when read, set aside if damaged.

A full disk, a killed process or an interrupted copy leaves damaged files. A compiler's own cache
runs such a file as it is, or fails on it. Here its kernel is compiled again, with one warning for
all files. This module knows no compiler.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import uuid
from pathlib import Path

logger = logging.getLogger(__name__)

DIGEST_BYTES = hashlib.sha256().digest_size


class CheckedFiles:
    """Reads and writes the files of one cache. No method raises because of the disk's contents."""

    def __init__(self, what: str) -> None:
        """`what` names the cache in its warnings."""
        self._what = what
        self._has_warned_of_damage = self._has_warned_of_writing = False

    def read(self, path: Path) -> bytes | None:
        """The content that `write` wrote; None if the file is missing or damaged."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.set_aside(path, error.strerror or type(error).__name__)
            return None
        digest, content = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
        if hashlib.sha256(content).digest() == digest:
            return content
        self.set_aside(path, "its bytes are not those that were written")
        return None

    def write(self, path: Path, content: bytes) -> None:
        """Keep the content for a later start, if the disk allows it; completely or not at all."""
        rest = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            rest.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(rest, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                rest.unlink()
            self.tell_of_folder(path.parent, error)

    def tell_of_folder(self, folder: Path, error: OSError) -> None:
        """Warn that no file can be kept in the folder."""
        if not self._has_warned_of_writing:
            self._has_warned_of_writing = True
            logger.warning(
                "%s cannot be kept in %s (%s); every start compiles them anew",
                self._what,
                folder,
                error.strerror,
            )

    def set_aside(self, path: Path, why: str) -> None:
        """Rename a damaged file to a name that is never read."""
        aside = path.with_name(f"{path.name}.damaged")
        try:
            os.replace(path, aside)
        except OSError:  # it stays; the next start finds it damaged again
            aside = path
        if not self._has_warned_of_damage:
            self._has_warned_of_damage = True
            logger.warning(
                "%s on disk are damaged (%s: %s) and are compiled anew", self._what, aside, why
            )
