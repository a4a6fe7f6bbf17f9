"""Reads a document in a process of its own, one at a time, within the limits.

The process gets the bytes and the file's name, and none of this process's environment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import sys
from contextlib import suppress
from pathlib import Path, PurePath

from falcon_mamba_app.documents.limits import (
    CHARACTERS_PER_PAGE,
    MAX_CHARACTERS,
    MAX_FILE_BYTES,
    MAX_WALL_S,
    Document,
    DocumentRefused,
    tidy,
)
from falcon_mamba_app.errors import Overloaded

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
MAX_WAITING = 8
MAX_OUTPUT_BYTES = 12 * MAX_CHARACTERS + 10_000  # a character as two escapes of JSON
MAX_NAME = 120
BROKEN = "the document cannot be read: its reader ended in the middle"


class DocumentReader:
    """Documents from bytes. `max_wall_s` is the time that one may take."""

    def __init__(self, *, max_wall_s: float = MAX_WALL_S) -> None:
        self._max_wall_s = max_wall_s
        self._turn = asyncio.Semaphore(1)  # one at a time: a document takes a core and up to 1 GiB
        self._num_waiting = 0

    async def read(self, name: str, data: bytes) -> Document:
        """The document. Raises DocumentRefused, and Overloaded while many wait."""
        if len(data) > MAX_FILE_BYTES:
            raise DocumentRefused(
                f"the file has {len(data):,} bytes; at most {MAX_FILE_BYTES:,} are read"
            )
        if self._num_waiting >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} documents wait to be opened; try again soon")
        self._num_waiting += 1
        try:
            async with self._turn:
                return await self._read(name, data)
        finally:
            self._num_waiting -= 1

    async def read_text(self, text: str) -> Document:
        """The document that a text is already. Raises DocumentRefused."""
        if len(text) > MAX_CHARACTERS:
            raise DocumentRefused(
                f"the text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read"
            )
        return await asyncio.to_thread(_of_text, text)

    async def _read(self, name: str, data: bytes) -> Document:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "falcon_mamba_app.documents.worker",
            short_name(name),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
        )
        try:
            async with asyncio.timeout(self._max_wall_s):
                told, _ = await process.communicate(data)
        except TimeoutError:
            raise DocumentRefused(
                f"the document takes more than {self._max_wall_s:g} s to open; it is not read"
            ) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return await asyncio.to_thread(_document, told, process.returncode)


def short_name(name: str) -> str:
    """The file's own name, without folders and without what cannot be printed."""
    plain = "".join(c for c in name if c.isprintable()).replace("\\", "/")
    path = PurePath(plain.strip())
    suffix = path.suffix[:16]
    stem = path.name.removesuffix(path.suffix) if path.suffix else path.name
    return f"{stem[: MAX_NAME - len(suffix)]}{suffix}".strip() or "document"


def _of_text(text: str) -> Document:
    kept = tidy(text)
    if not kept:
        raise DocumentRefused("the text is empty")
    return Document(kept, "text", math.ceil(len(kept) / CHARACTERS_PER_PAGE))


def _document(told: bytes, status: int | None) -> Document:
    if status != 0 or len(told) > MAX_OUTPUT_BYTES:
        logger.warning("the reader of a document ended with status %s", status)
        raise DocumentRefused(BROKEN)
    try:
        fields = json.loads(told)
    except ValueError:
        raise DocumentRefused(BROKEN) from None
    if "refused" in fields:
        raise DocumentRefused(fields["refused"])
    return Document(**fields)
