"""Spares Gradio the stub files that editors read.

While Gradio is imported it parses the source of each of its 60 components and compares or rewrites
the .pyi file beside it: half of the import, 1.2 s of a start, and a race where two processes start
at once. Nothing reads these files while a program runs. If a new version of Gradio does it
otherwise, only time is lost.

It must be called before Gradio is imported, so this module imports nothing of it.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

WRITER_MODULE, WRITER = "gradio.component_meta", "create_or_modify_pyi"


def write_no_stub_files() -> None:
    """From now on, in this process; without effect where Gradio is already imported."""
    if WRITER_MODULE not in sys.modules and not any(isinstance(x, _Sparing) for x in sys.meta_path):
        sys.meta_path.insert(0, _Sparing())


class _Sparing(MetaPathFinder):
    """Finds the writer's module once, as others would, and takes the writer's function out."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != WRITER_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def execute_and_spare(module: ModuleType) -> None:
                execute(module)
                if hasattr(module, WRITER):
                    setattr(module, WRITER, _write_nothing)

            loader.exec_module = execute_and_spare
        return spec


def _write_nothing(*_: Any) -> None:
    """In place of the writer."""
