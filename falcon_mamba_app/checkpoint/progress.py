"""How far downloading and loading are: told to a function, and now and then to the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

OnProgress = Callable[[float, str], None]
LINE_EVERY_S = 5.0


def unheard(share: float, what: str) -> None:
    """The progress of something that nobody waits for."""


class ProgressLines:
    """A line in the log every few seconds; a step that takes less has none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_s = clock() + LINE_EVERY_S

    def __call__(self, share: float, what: str) -> None:
        if self._clock() >= self._next_s:
            self._next_s = self._clock() + LINE_EVERY_S
            logger.info("%s: %.0f %%", what, 100 * share)


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
