"""Triton's compiled kernels on disk; beside each file is a seal, a hash of its content.

Triton loads its cache unchecked: a truncated kernel stopped every start, a truncated launcher ended
the process. Files of older versions have no seal; they are compiled again without a warning.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from triton import knobs
from triton.runtime.cache import FileCacheManager

from falcon_mamba_app.ops.damage import CheckedFiles
from falcon_mamba_app.temporary import check_room, folder_with_room

SEAL = ".sealed"


def checked_manager(files: CheckedFiles) -> type[FileCacheManager]:
    """A cache manager for Triton that returns only undamaged files."""

    class CheckedCacheManager(FileCacheManager):  # type: ignore[misc]
        def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
            try:
                super().__init__(key, override=override, dump=dump)
            except OSError as error:  # the kernel's folder cannot be used
                if (Path(knobs.cache.dir) / key).exists():
                    files.set_aside(Path(knobs.cache.dir) / key, error.strerror or "not a folder")
                else:  # nor can it be made
                    files.tell_of_folder(Path(knobs.cache.dir), error)
                    _keep_for_this_process()
                super().__init__(key, override=override, dump=dump)

        def put(self, data: Any, filename: str, binary: bool = True) -> str:
            content = data if isinstance(data, bytes) else str(data).encode()
            try:
                path: str = super().put(content, filename, binary=True)
            except OSError as error:  # as on a disk that is full by now
                files.tell_of_folder(Path(self.cache_dir), error)
                if knobs.cache.dir == str(Path(self.cache_dir).parent):
                    _keep_for_this_process()
                super().__init__(self.key)
                path = super().put(content, filename, binary=True)
            files.write(_seal_of(Path(path)), _digest(content))
            return path

        def get_file(self, filename: str) -> str | None:
            path = super().get_file(filename)
            return path if path is not None and _is_whole(Path(path), files) else None

        def get_group(self, filename: str) -> dict[str, str] | None:
            if self.get_file(f"__grp__{filename}") is None:
                return None
            group: dict[str, str] | None = super().get_group(filename)
            if group is None or not all(_is_whole(Path(path), files) for path in group.values()):
                return None
            return group

    return CheckedCacheManager


def check_what_triton_keeps() -> None:
    """Install the checked manager, unless another one is set, and make sure a folder exists."""
    files = CheckedFiles("Triton's compiled kernels")
    if knobs.cache.manager_class is None:
        knobs.cache.manager_class = checked_manager(files)
    folder = Path(knobs.cache.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_room(folder)
    except OSError as error:
        files.tell_of_folder(folder, error)
        _keep_for_this_process()


def _keep_for_this_process() -> None:
    """What is compiled from now on, in memory if no disk has room."""
    knobs.cache.dir = tempfile.mkdtemp(prefix="triton-", dir=folder_with_room())
    atexit.register(shutil.rmtree, knobs.cache.dir, ignore_errors=True)


def _is_whole(path: Path, files: CheckedFiles) -> bool:
    if not _seal_of(path).exists():
        return False
    digest = files.read(_seal_of(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        files.set_aside(path, error.strerror or type(error).__name__)
        return False
    if digest is not None and digest != _digest(content):
        files.set_aside(path, "its bytes are not those that were written")
    return digest == _digest(content)


def _seal_of(path: Path) -> Path:
    return path.with_name(path.name + SEAL)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
