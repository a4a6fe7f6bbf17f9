"""A page's event as Gradio hands it to a handler, of a visitor whom nobody limits."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from falcon_mamba_app.visitors import anybody


def page_request(session_hash: str) -> gr.Request:
    return gr.Request(session_hash=session_hash, state=SimpleNamespace(visitor=anybody()))
