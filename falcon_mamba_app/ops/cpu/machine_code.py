"""numba's machine code on disk: one file for each kernel and each type of its arguments.

numba's own cache unpickles its files unchecked: a truncated file stopped every start, and a changed
byte would be executed.
"""

from __future__ import annotations

import hashlib
import pickle
import platform
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import numba

from falcon_mamba_app.ops.damage import CheckedFiles

VERSIONS = (platform.python_version(), numba.__version__, llvmlite.__version__)


class CheckedCache:
    """Replaces numba's `FunctionCache` in a dispatcher, and uses its keys and its file format."""

    def __init__(self, cache: Any, folder: Path, files: CheckedFiles) -> None:
        self._cache, self._folder, self._files = cache, folder, files

    @property
    def cache_path(self) -> str:
        return str(self._folder)

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The kernel for these types, or None."""
        target.refresh()
        path = self._path(self._cache._index_key(signature, target.codegen()))
        data = self._files.read(path)
        if data is None:
            return None
        try:
            return self._cache._impl.rebuild(target, pickle.loads(data))
        except Exception as error:  # undamaged, but of another version
            self._files.set_aside(path, type(error).__name__)
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        if self._cache._impl.check_cachable(result):
            path = self._path(self._cache._index_key(signature, result.codegen))
            self._files.write(path, pickle.dumps(self._cache._impl.reduce(result), protocol=-1))

    def _path(self, key: Any) -> Path:
        name = self._cache._impl.filename_base
        digest = hashlib.sha256(repr((VERSIONS, name, key)).encode()).hexdigest()
        return self._folder / f"{name}.{digest[:20]}.kernel"


def keep_checked(dispatcher: Any, folder: Path, files: CheckedFiles) -> Any:
    """Make the dispatcher keep its machine code in `folder`, and return it."""
    dispatcher._cache = CheckedCache(dispatcher._cache, folder, files)
    return dispatcher
