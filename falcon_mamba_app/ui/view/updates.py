"""What one step of a handler changes on the page; everything not named stays as it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from falcon_mamba_app.ui.conversation.reply import Phase, Reply, describe

PANEL_INTERVAL_S = 1 / 3  # figures that change faster cannot be read


SKIP: Any = gr.skip()  # leaves a component as it is


class Update(NamedTuple):
    """New values for the components that a turn touches, in the order of the outputs.

    `growing` is the reply being written, below the `transcript`; an update then brings its new
    words alone. `returned` is a message that got no answer: the browser puts it above what the
    composer holds. `beat` changes with every update; the browser takes its silence for a broken
    connection.
    """

    transcript: Any = SKIP
    growing: Any = SKIP
    document: Any = SKIP
    composer: Any = SKIP
    returned: Any = SKIP
    status: Any = SKIP
    panel: Any = SKIP
    busy: Any = SKIP
    saved: Any = SKIP
    beat: Any = SKIP


def status_html(text: str, *, phase: str = "idle") -> str:
    """The status line. `phase` chooses the mark before the words."""
    return f'<span class="status-line" data-phase="{phase}">{escape(text)}</span>'


def reply_status(reply: Reply) -> str:
    """The status line of a reply in progress or just over."""
    return status_html(describe(reply), phase=reply.phase)


def busy_html(is_busy: bool) -> str:
    """The mark of a reply being written, which assets/style.css and composer.js follow: Stop takes
    the place of Send, or of Continue, and what would change the past waits for its end.

    It is a value, since Gradio loses changes of `visible` and `interactive` where two come within a
    moment: a page that had a quick reply kept Stop, and took itself for busy.
    """
    return "<i></i>" if is_busy else ""


class PanelPace:
    """Says when the panel is due: at most once per PANEL_INTERVAL_S, and always when a reply's
    phase changes and when its speed is first known.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_s = 0.0
        self._seen: tuple[Phase, bool] | None = None

    def is_due(self, reply: Reply) -> bool:
        now_s = self._clock()
        seen = (reply.phase, reply.tokens_per_s is None)
        if now_s < self._next_s and seen == self._seen:
            return False
        self._seen = seen
        self._next_s = now_s + PANEL_INTERVAL_S
        return True
