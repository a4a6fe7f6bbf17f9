"""numba's njit, with its machine code kept on disk in a folder named by a hash of the sources.

numba compiles a kernel again when the kernel's own file changes. It does not see a change in
another file whose functions it inlined. The folder's name is a hash over all of these files, so no
stale machine code is found.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from numba import njit

from falcon_mamba_app.ops.cpu.machine_code import keep_checked
from falcon_mamba_app.ops.damage import CheckedFiles

FOLDER = Path(__file__).parent
# The folders of the kernels, and of the constants that they import.
SOURCES = (FOLDER, FOLDER.parent / "reference")
config: Any = numba.config


def hash_of(folders: Iterable[Path]) -> str:
    """A hash over the names and contents of the Python files in these folders."""
    digest = hashlib.sha256()
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        digest.update(f"{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def first_writable(folders: list[Path]) -> Path | None:
    """The first folder that can be made and written to."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return None


def _candidates() -> list[Path]:
    """NUMBA_CACHE_DIR alone if it is set; otherwise the folders that numba itself would use."""
    if config.CACHE_DIR:
        parents = [Path(config.CACHE_DIR)]
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        parents = [FOLDER / "__pycache__", caches / "numba"]
    return [parent / f"kernels-{hash_of(SOURCES)}" for parent in parents]


CACHE_FOLDER = first_writable(_candidates())
FILES = CheckedFiles("numba's compiled kernels")


def compiled(options: dict[str, Any]) -> Callable[[Callable[..., Any]], Any]:
    """njit with these options; its machine code is kept if there is a folder for it."""

    def decorate(function: Callable[..., Any]) -> Any:
        if CACHE_FOLDER is None:
            return njit(**options)(function)
        with _numba_keeps_in(CACHE_FOLDER):
            dispatcher = njit(cache=True, **options)(function)
        return keep_checked(dispatcher, CACHE_FOLDER, FILES)

    return decorate


@contextmanager
def _numba_keeps_in(folder: Path) -> Iterator[None]:
    """Set numba's folder; numba reads this setting once per function, at its decoration."""
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before
