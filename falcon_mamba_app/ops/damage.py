"""Files of compiled kernels on disk: sealed when written, checked when read, set aside if damaged.

A disk that was full, a process that was killed or a copy that broke off leaves files that a
compiler's own cache runs as they are, or stops at. Here they are compiled anew, with one warning
for all of them. It knows no compiler.
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
    """Reads and writes the files of one cache. No method raises because of what is on disk."""

    def __init__(self, what: str) -> None:
        """`what` names the cache in its warnings."""
        self._what = what
        self._has_warned_of_damage = self._has_warned_of_writing = False

    def read(self, path: Path) -> bytes | None:
        """What `write` wrote there; None where there is nothing, or nothing whole."""
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
        """Keep it for a later start, if there is a place for it; whole, or not at all."""
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
        """Nothing can be kept there."""
        if not self._has_warned_of_writing:
            self._has_warned_of_writing = True
            logger.warning(
                "%s cannot be kept in %s (%s); every start compiles them anew",
                self._what,
                folder,
                error.strerror,
            )

    def set_aside(self, path: Path, why: str) -> None:
        """Out of the way, under a name that nobody reads."""
        aside = path.with_name(f"{path.name}.damaged")
        try:
            os.replace(path, aside)
        except OSError:  # it stays, and is found damaged again
            aside = path
        if not self._has_warned_of_damage:
            self._has_warned_of_damage = True
            logger.warning(
                "%s on disk are damaged (%s: %s) and are compiled anew", self._what, aside, why
            )
