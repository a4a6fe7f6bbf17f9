"""Files in a zip archive, unpacked within limits. What an archive claims about them is not trusted:
the bytes that come out are counted.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from types import TracebackType

from falcon_mamba_app.documents.limits import (
    MAX_ENTRIES,
    MAX_ENTRY_BYTES,
    MAX_RATIO,
    MAX_UNPACKED_BYTES,
    DocumentRefused,
)

SMALL_BYTES = 1_000_000  # an entry up to this size may have any ratio
PART_BYTES = 64 * 1024


class Archive:
    """A zip archive whose entries are read one by one. Raises DocumentRefused."""

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
            raise DocumentRefused("the archive is damaged or cut off") from None
        self.names = self._zip.namelist()
        self._num_bytes = 0
        if len(self.names) > MAX_ENTRIES:
            raise DocumentRefused(
                f"the archive has {len(self.names):,} files; at most {MAX_ENTRIES:,} are read"
            )

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """The entry's bytes. Raises DocumentRefused where it is missing, encrypted or too much."""
        try:
            entry = self._zip.getinfo(name)
        except KeyError:
            raise DocumentRefused(f"the archive lacks {name[:80]}") from None
        if entry.flag_bits & 1:
            raise DocumentRefused("the file is encrypted; remove its password first")
        parts: list[bytes] = []
        num_bytes = 0
        try:
            with self._zip.open(entry) as unpacking:
                while part := unpacking.read(PART_BYTES):
                    parts.append(part)
                    num_bytes += len(part)
                    self._num_bytes += len(part)
                    self._refuse_too_much(num_bytes, entry.compress_size)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError):
            raise DocumentRefused("the archive is damaged or cut off") from None
        return b"".join(parts)

    def _refuse_too_much(self, num_bytes: int, num_packed: int) -> None:
        is_swollen = num_bytes > max(SMALL_BYTES, MAX_RATIO * num_packed)
        is_large = num_bytes > MAX_ENTRY_BYTES or self._num_bytes > MAX_UNPACKED_BYTES
        if is_swollen or is_large:
            raise DocumentRefused(
                "the archive unpacks to far more than a document has; it is not read"
            )
