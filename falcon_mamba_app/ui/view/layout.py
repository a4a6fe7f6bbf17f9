"""Where everything stands on the page. No event is wired here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from falcon_mamba_app.protocol import ServiceStats
from falcon_mamba_app.ui.view.controls import (
    Controls,
    ControlValues,
    build_controls,
    build_system_prompt,
    shown_presets,
)
from falcon_mamba_app.ui.view.laboratory import frame_html
from falcon_mamba_app.ui.view.parts import part
from falcon_mamba_app.ui.view.readiness import Readiness, readiness
from falcon_mamba_app.ui.view.updates import Update, busy_html, status_html

# Fixed, so that a restart of the server finds what a browser kept. Not a secret: it only keeps
# the texts unreadable to a glance at the browser's storage.
STORAGE_SECRET = "falcon-mamba-playground"

# Until the load event has restored the visitor's conversation.
CONNECTING = status_html("Connecting", phase="starting")


@dataclass(frozen=True, slots=True)
class DocumentView:
    """The notebook: one text that the model continues. A base model has no other page."""

    text: gr.Textbox
    extend: gr.Button
    stop: gr.Button
    retry: gr.Button
    undo: gr.Button
    clear: gr.Button


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Every component that an event reads or writes."""

    transcript: gr.HTML
    growing: gr.HTML
    counter: gr.HTML
    book: gr.HTML
    probabilities: gr.HTML
    comparison: gr.HTML
    prompt: gr.HTML
    inspection: gr.HTML
    files: gr.HTML
    composer: gr.Textbox
    returned: gr.Textbox
    send: gr.Button
    stop: gr.Button
    retry: gr.Button
    undo: gr.Button
    clear: gr.Button
    document_view: DocumentView
    status: gr.HTML
    busy: gr.HTML
    panel: gr.HTML
    side: gr.Accordion
    controls: Controls
    header: gr.HTML
    sidebar: gr.HTML
    banner: gr.HTML
    chat: gr.Column
    timer: gr.Timer
    saved: gr.BrowserState
    settings: gr.BrowserState
    is_narrow: gr.Checkbox
    drafts: gr.Textbox
    refresh: gr.Button
    beat: gr.Textbox

    @property
    def outputs(self) -> Update:
        """The component behind each field of an update."""
        return Update(
            transcript=self.transcript,
            growing=self.growing,
            document=self.document_view.text,
            composer=self.composer,
            returned=self.returned,
            status=self.status,
            panel=self.panel,
            busy=self.busy,
            saved=self.saved,
            beat=self.beat,
        )

    @property
    def readiness_outputs(self) -> Readiness:
        """The component behind each of what depends on the service's status."""
        return Readiness(
            header=self.header,
            banner=self.banner,
            chat=self.chat,
            panel=self.panel,
            composer=self.composer,
            status=self.status,
            send=self.send,
            extend=self.document_view.extend,
            timer=self.timer,
        )


def draw(stats: ServiceStats, examples: dict[str, list[dict[str, Any]]]) -> Components:
    """Draw the page in the Blocks being built, as it looks before its first event."""
    first = readiness(stats)
    gr.HTML(LIVE_REGIONS, elem_id="live", padding=False)  # first: it has the skip link
    header = gr.HTML(first.header, elem_id="header")
    banner = gr.HTML(elem_id="banner", visible=False)
    with gr.Row(elem_id="main", equal_height=False):
        sidebar = part("sidebar", template='<nav aria-label="Conversations"></nav>')
        with gr.Column(elem_id="talk", scale=7, min_width=320):
            gr.HTML('<div id="memory-line"></div>', padding=False)
            with gr.Column(elem_id="chat") as chat:
                chat_parts = _draw_chat(examples)
            with gr.Column(elem_id="document-page"):
                document_view = _draw_document(examples["document"])
            probabilities, prompt = part("probabilities"), part("prompt")  # of both
            inspection = part("inspection")  # drawn in the laboratory
            status = gr.HTML(CONNECTING, elem_id="status")
            busy = gr.HTML(busy_html(False), elem_id="busy", padding=False)
        with gr.Column(elem_id="side", scale=3, min_width=300):
            with gr.Accordion("Memory and figures", open=True, elem_id="figures") as side:
                panel = part("panel", template=PANEL, value=first.panel)
            # Open: Gradio makes a closed one's fields when it is first opened, and sets them, a
            # moment later, to what they were, over what was typed. assets/page.js folds it unseen.
            presets = part("presets", value=shown_presets(ControlValues()))
            with gr.Accordion("Model behaviour", open=True, elem_id="behaviour"):
                controls = build_controls(build_system_prompt(), presets)
    gr.HTML(frame_html(), elem_id="lab", padding=False)
    return Components(
        **chat_parts,
        probabilities=probabilities,
        prompt=prompt,
        inspection=inspection,
        document_view=document_view,
        status=status,
        busy=busy,
        panel=panel,
        side=side,
        controls=controls,
        header=header,
        sidebar=sidebar,
        banner=banner,
        chat=chat,
        timer=gr.Timer(2, active=False),
        saved=gr.BrowserState(storage_key="falcon-mamba-chat", secret=STORAGE_SECRET),
        settings=gr.BrowserState(storage_key="falcon-mamba-settings", secret=STORAGE_SECRET),
        is_narrow=gr.Checkbox(visible=False),
        drafts=gr.Textbox(visible=False),
        refresh=gr.Button("Refresh", elem_id="refresh"),  # clicked by assets/page.js alone
        beat=gr.Textbox(elem_id="beat"),
    )


# The state of the connection, and short notes; both are read out by screen readers.
LIVE_REGIONS = (
    '<a class="skip" href="#composer">To the message box</a>'
    '<div id="connection" role="alert"></div><div id="toast" role="status" hidden></div>'
)
PANEL = '<div class="panel"></div>'
WELCOME = (
    '<div class="empty"><h2>One fixed memory. Any length.</h2>'
    "<p>Everything said so far lives in one block of numbers that never grows: it can be saved, "
    "copied and gone back to in milliseconds.</p>"
)


def transcript_html(examples: list[dict[str, str]], demos: list[dict[str, Any]]) -> str:
    """The conversation's frame: what is shown while it is empty, and the place of its messages."""
    shown = "".join(
        f'<button type="button" class="demo" data-words="{escape(json.dumps(demo))}">'
        f"<b>{escape(demo['title'])}</b><span>{escape(demo['hint'])}</span></button>"
        for demo in demos
    )
    offered = "".join(
        f'<button type="button" class="example" data-text="{escape(example["text"])}">'
        f"{escape(example['title'])}</button>"
        for example in examples
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Conversation">{WELCOME}'
        f'<div class="demos">{shown}</div><div class="examples">{offered}</div></div>'
        '<div class="rows" role="log" aria-live="off" aria-label="Messages"></div></div>'
        '<button type="button" class="down" hidden>↓ The newest words</button>'
    )


def tour_html(steps: list[dict[str, str]]) -> str:
    """Where assets/page.js offers the step of the tour that follows what was said last."""
    return f'<div id="tour" data-steps="{escape(json.dumps(steps))}"></div>'


def _draw_chat(examples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    book = part("book", template='<div class="book" aria-live="polite" hidden></div>')
    transcript = part(
        "transcript", template=transcript_html(examples["chat"], examples["demos"]), value=[]
    )
    growing = part("growing")
    gr.HTML(tour_html(examples["tour"]), elem_id="tour-place", padding=False)
    with gr.Row(elem_id="composer-row", equal_height=False):
        composer = gr.Textbox(
            label="Message",
            show_label=False,
            container=False,
            lines=1,
            max_lines=8,
            autofocus=True,
            elem_id="composer",
            scale=10,
        )
        send = gr.Button("Send", variant="primary", elem_id="send", min_width=88, scale=0)
        stop = gr.Button("Stop", elem_id="stop", min_width=88, scale=0)
    counter, files, comparison = part("counter"), part("files"), part("comparison")
    returned = gr.Textbox(label="Returned message", elem_id="returned")
    with gr.Row(elem_id="tools"):
        retry = _tool("Retry", "retry")
        undo = _tool("Undo", "undo")
        clear = _tool("New conversation", "clear")
        _tool("Side by side", "side-by-side")  # in assets/comparison.js
        _tool("Copy all", "copy-all")  # wired in assets/page.js
        _tool("As code", "as-code")  # in assets/as_code.js
        _tool("Read a file", "read-document")  # wired in assets/books.js
        _tool("Show prompt", "show-prompt")  # in assets/notebook.js
        _tool("Notebook", "to-notebook")  # there too
    return {
        "book": book,
        "transcript": transcript,
        "growing": growing,
        "counter": counter,
        "comparison": comparison,
        "files": files,
        "composer": composer,
        "returned": returned,
        "send": send,
        "stop": stop,
        "retry": retry,
        "undo": undo,
        "clear": clear,
    }


def _draw_document(examples: list[dict[str, str]]) -> DocumentView:
    text = gr.Textbox(
        label="Text",
        info="The model continues the text you begin, and reads nothing else.",
        placeholder="Once upon a time",
        lines=16,
        max_lines=30,
        elem_id="document",
    )
    gr.Examples(
        [[e["text"]] for e in examples],
        inputs=[text],
        example_labels=[e["title"] for e in examples],
        label="Beginnings",
        api_visibility="private",
    )
    with gr.Row(elem_id="document-tools"):
        extend = gr.Button("Continue", variant="primary", elem_id="extend", min_width=110, scale=0)
        stop = gr.Button("Stop", elem_id="document-stop", min_width=110, scale=0)
        retry = _tool("Retry", "document-retry")
        undo = _tool("Undo", "document-undo")
        clear = _tool("Clear", "document-clear")
        _tool("How sure?", "document-sure")  # these three in assets/notebook.js
        _tool("Show prompt", "document-prompt")
        _tool("Chat", "to-chat")
    gr.HTML('<div id="text-sureness"></div>', padding=False)
    return DocumentView(text, extend, stop, retry, undo, clear)


def _tool(label: str, elem_id: str) -> gr.Button:
    return gr.Button(label, size="sm", elem_id=elem_id, min_width=64, scale=0)
