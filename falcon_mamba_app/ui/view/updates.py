"""What one step of a handler changes on the page; everything not named stays as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

import gradio as gr
from gradio.components.chatbot import Message as Bubble
from gradio.components.chatbot import TextMessage

from falcon_mamba_app.protocol import Message, ServiceStats
from falcon_mamba_app.ui.conversation.reply import Phase, Reply, describe
from falcon_mamba_app.ui.view.message_text import shown
from falcon_mamba_app.ui.view.metrics_panel import Figures, render_panel

PANEL_INTERVAL_S = 1 / 3  # figures that change faster cannot be read


SKIP: Any = gr.skip()  # leaves a component as it is


class Update(NamedTuple):
    """New values for the components that a turn touches, in the order of the outputs.

    `returned` is a message that got no answer: the browser puts it above what the composer holds.
    `beat` changes with every update; the browser takes its silence for a broken connection.
    """

    transcript: Any = SKIP
    document: Any = SKIP
    composer: Any = SKIP
    returned: Any = SKIP
    status: Any = SKIP
    panel: Any = SKIP
    send: Any = SKIP
    stop: Any = SKIP
    extend: Any = SKIP
    document_stop: Any = SKIP
    saved: Any = SKIP
    beat: Any = SKIP


def bubble(message: Message) -> Bubble:
    """A message as the chatbot takes it without further work."""
    return Bubble(role=message.role, content=[TextMessage(text=shown(message.content))])


def bubbles(messages: Sequence[Message]) -> list[Bubble]:
    """The whole conversation."""
    return [bubble(message) for message in messages]


def notice(sentence: str, *, title: str) -> Bubble:
    """A remark of the page below the conversation; never part of what the model reads."""
    return Bubble(
        role="assistant",
        content=[TextMessage(text=shown(sentence))],
        metadata={"title": f"⚠ {title}"},
    )


def status_html(text: str, *, phase: str = "idle") -> str:
    """The status line. `phase` chooses the mark before the words."""
    return f'<span class="status-line" data-phase="{phase}">{escape(text)}</span>'


def reply_status(reply: Reply) -> str:
    """The status line of a reply in progress or just over."""
    return status_html(describe(reply), phase=reply.phase)


def busy_buttons(is_busy: bool) -> dict[str, Any]:
    """Stop takes the place of Send, or of Continue, while a reply is written."""
    shown_idle, shown_busy = gr.update(visible=not is_busy), gr.update(visible=is_busy)
    return {
        "send": shown_idle,
        "stop": shown_busy,
        "extend": shown_idle,
        "document_stop": shown_busy,
    }


class PanelPace:
    """Renders the panel at most once per PANEL_INTERVAL_S, and always when a reply's phase changes
    and when its speed is first known.
    """

    def __init__(
        self,
        stats: Callable[[], ServiceStats],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stats = stats
        self._clock = clock
        self._next_s = 0.0
        self._seen: tuple[Phase, bool] | None = None

    def render(self, reply: Reply) -> Any:
        """The panel's HTML when it is due, else nothing to change."""
        now_s = self._clock()
        seen = (reply.phase, reply.tokens_per_s is None)
        if now_s < self._next_s and seen == self._seen:
            return SKIP
        self._seen = seen
        self._next_s = now_s + PANEL_INTERVAL_S
        return render_panel(Figures.of(self._stats(), reply))

    def render_idle(self, context_tokens: int | None) -> str:
        """The panel's HTML after a reply that left the conversation as it was."""
        return render_panel(Figures(stats=self._stats(), context_tokens=context_tokens))
