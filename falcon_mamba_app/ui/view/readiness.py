"""The service's status on a page: its header, its banner, and the enabled buttons.

These are pure functions of ServiceStats. They know no session.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from falcon_mamba_app.protocol import ModelInfo, ServiceStats
from falcon_mamba_app.ui.view.controls import slider_defaults
from falcon_mamba_app.ui.view.laboratory import TABS
from falcon_mamba_app.ui.view.panel import Figures, shown_panel
from falcon_mamba_app.ui.view.updates import status_html

REAL_MODEL = (
    "A GPU with 24 GB runs it unquantised, one with 8 GB in 4 bits. With 16 GB of memory and no GPU"
    " add --quantization int8"
)
PLACEHOLDERS = {
    "ready": "Write a message",
    "loading": "The model is loading. You can write your message already",
    "failed": "The model is not available",
}
IDLE_STATUS = {
    "ready": "Ready",
    "loading": "The model is loading",
    "failed": "The model is not available",
}

LOGO = (
    '<svg class="logo" viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="9"/>'
    '<path d="M6 20c4-9 7-9 10-3s6 6 10-5" fill="none" stroke-width="2.6" stroke-linecap="round"/>'
    '<circle cx="26" cy="12" r="2.4"/></svg>'
)
SIDEBAR_BUTTON = (
    '<button id="sidebar-toggle" type="button" aria-label="Conversations" aria-expanded="false" '
    'title="Conversations (Ctrl B)"><svg viewBox="0 0 24 24" aria-hidden="true">'
    '<path d="M4 6h16M4 12h10M4 18h13" fill="none" stroke-width="2" stroke-linecap="round"/></svg>'
    "</button>"
)
THEME_BUTTON = (
    '<button id="theme-toggle" type="button" aria-label="Switch between light and dark" '
    'title="Light or dark"><svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" '
    'r="8" fill="none" stroke-width="2"/><path d="M12 4a8 8 0 0 1 0 16z"/></svg></button>'
)


class Readiness(NamedTuple):
    """What depends on the service's status, in the order of the outputs."""

    header: Any
    banner: Any
    chat: Any
    panel: Any
    composer: Any
    status: Any
    send: Any
    extend: Any
    timer: Any


def readiness(stats: ServiceStats, *, context_tokens: int | None = None) -> Readiness:
    """What the page shows of the service's status."""
    is_ready = stats.status == "ready"
    is_base_model = stats.model is not None and not stats.model.has_chat_template
    return Readiness(
        header=render_header(stats),
        banner=gr.update(value=render_banner(stats), visible=not is_ready),
        chat=gr.update(visible=not is_base_model),
        panel=shown_panel(Figures(stats=stats, context_tokens=context_tokens)),
        composer=gr.update(placeholder=PLACEHOLDERS[stats.status]),
        status=idle_status(stats),
        send=gr.update(interactive=is_ready),
        extend=gr.update(interactive=is_ready),
        timer=gr.Timer(active=not is_ready),
    )


def render_header(stats: ServiceStats) -> str:
    """Who speaks here."""
    model = stats.model
    name = escape(model.id) if model else "no model yet"
    defaults = escape(json.dumps(slider_defaults(model)))
    return (
        f'<header class="masthead" data-defaults="{defaults}">{SIDEBAR_BUTTON}{LOGO}'
        f'<div class="titles"><h1>Falcon Mamba</h1>{_subtitle(model)}</div>{TABS}'
        f'<span class="chip" data-status="{stats.status}" title="{name}">'
        f'<span class="dot"></span><span class="name">{name}</span></span>'
        f"{THEME_BUTTON}</header>"
    )


def _subtitle(model: ModelInfo | None) -> str:
    """One line: what this model is, and how to get the real one here."""
    if model is not None and model.cannot_chat is not None:
        return (
            f'<p class="bundled"><b>No chat with this model:</b> {escape(model.cannot_chat)}. '
            "<span>It continues texts.</span></p>"
        )
    if model is not None and model.is_bundled:
        return (
            f'<p class="bundled" title="{REAL_MODEL}"><b>Demonstration model,</b> not Falcon Mamba '
            "7B. <span>The real one: <code>python app.py --model falcon-mamba-7b-instruct</code> "
            "(a GPU with 8 GB)</span></p>"
        )
    return "<p>A state-space model: its whole memory is one fixed block.</p>"


def render_banner(stats: ServiceStats) -> str:
    """Progress while loading, the reason after a failure."""
    if stats.status == "ready":
        return ""
    detail = escape(stats.detail)
    if stats.status == "failed":
        return (
            f'<div class="banner failed" role="alert"><b>The model is not available.</b> {detail}'
            "</div>"
        )
    percent = None if stats.load_progress is None else round(100 * stats.load_progress)
    value = "" if percent is None else f' aria-valuenow="{percent}"'
    width = 100 if percent is None else percent
    return (
        f'<div class="banner"><div><b>Loading the model</b> {detail}'
        f"<span>{'' if percent is None else f'{percent} %'}</span></div>"
        f'<div class="bar{" unknown" if percent is None else ""}" role="progressbar" '
        f'aria-label="Loading the model" aria-valuemin="0" aria-valuemax="100"{value}>'
        f'<i style="width:{width}%"></i></div></div>'
    )


def idle_status(stats: ServiceStats) -> str:
    """The status line of a page that has just opened."""
    return status_html(IDLE_STATUS[stats.status], phase=stats.status)
