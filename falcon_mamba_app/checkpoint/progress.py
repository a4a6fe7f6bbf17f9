"""The progress of transformers' reading, told to a function instead of printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OnProgress = Callable[[float, str], None]


@contextmanager
def progress_told_to(on_progress: OnProgress) -> Iterator[None]:
    """Send the values of transformers' progress bar to `on_progress`, and print no bar."""
    from transformers.utils import logging as transformers_logging

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bar = factory(*args, **{**kwargs, "disable": True})
        if not args:
            return bar
        return _told(bar, total=len(args[0]), on_progress=on_progress)

    previous = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)


def _told(bar: Any, *, total: int, on_progress: OnProgress) -> Iterator[Any]:
    for done, item in enumerate(bar):
        on_progress(done / max(total, 1), "reading weights")
        yield item
