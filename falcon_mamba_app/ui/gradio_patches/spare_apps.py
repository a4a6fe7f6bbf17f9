"""Spares Gradio the applications that nobody serves.

While a page is built Gradio makes its 80 routes three times, for `launch` and for tests, and a
fourth time for whoever mounts it. Three quarters of the 0.5 s that a page takes went there, on the
event loop of a server that starts. If a new version of Gradio calls it otherwise, only time is
lost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gradio.blocks import Blocks
from gradio.routes import App

SPARE: dict[str, Any] = {"mcp_server": False}


def make_no_spare_apps() -> None:
    """From now on, in this process."""
    if not isinstance(App.create_app, _Sparing):
        App.create_app = _Sparing(App.create_app)  # type: ignore[method-assign]


class _Sparing:
    """`App.create_app`, but an application without routes where only Blocks itself asks for one."""

    def __init__(self, create: Callable[..., App]) -> None:
        self._create = create
        functools.update_wrapper(self, create)

    def __call__(self, blocks: Blocks, *args: Any, **options: Any) -> App:
        if args or options != SPARE:
            return self._create(blocks, *args, **options)
        app = App()
        app.configure_app(blocks)  # the page reaches its state through it
        return app
