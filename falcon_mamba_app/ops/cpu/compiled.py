"""numba's njit, with its machine code kept on disk in a folder named by what is compiled.

numba compiles a kernel anew when the kernel's own file changes, and does not see a change in a file
that it was inlined from. In a folder that a hash over all of them names, nothing stale is found.
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
# Of what is compiled, and of the constants that it takes from elsewhere.
SOURCES = (FOLDER, FOLDER.parent / "reference")
config: Any = numba.config


def hash_of(folders: Iterable[Path]) -> str:
    """Over the names and contents of the Python files in these folders."""
    digest = hashlib.sha256()
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        digest.update(f"{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def first_writable(folders: list[Path]) -> Path | None:
    """The first of them that can be made and written to."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return None


def _candidates() -> list[Path]:
    """NUMBA_CACHE_DIR alone if it is set; else where numba itself would look."""
    if config.CACHE_DIR:
        parents = [Path(config.CACHE_DIR)]
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        parents = [FOLDER / "__pycache__", caches / "numba"]
    return [parent / f"kernels-{hash_of(SOURCES)}" for parent in parents]


CACHE_FOLDER = first_writable(_candidates())
FILES = CheckedFiles("numba's compiled kernels")


def compiled(options: dict[str, Any]) -> Callable[[Callable[..., Any]], Any]:
    """njit with these options; what it compiles is kept where there is a folder for it."""

    def decorate(function: Callable[..., Any]) -> Any:
        if CACHE_FOLDER is None:
            return njit(**options)(function)
        with _numba_keeps_in(CACHE_FOLDER):
            dispatcher = njit(cache=True, **options)(function)
        return keep_checked(dispatcher, CACHE_FOLDER, FILES)

    return decorate


@contextmanager
def _numba_keeps_in(folder: Path) -> Iterator[None]:
    """numba reads its setting once for each function, when that is decorated."""
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before
