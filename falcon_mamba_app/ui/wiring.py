"""Which event of which component calls which handler, and what the browser does by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from falcon_mamba_app.ui.events.arrival import Arrival
from falcon_mamba_app.ui.events.books import BookEvents
from falcon_mamba_app.ui.events.chat_and_document import ChatHandlers, DocumentHandlers
from falcon_mamba_app.ui.events.comparison import Comparison
from falcon_mamba_app.ui.events.counting import Counting
from falcon_mamba_app.ui.events.inspection import Inspection
from falcon_mamba_app.ui.events.memory_files import MemoryFiles
from falcon_mamba_app.ui.events.message_actions import MessageActions
from falcon_mamba_app.ui.events.presets import Presets
from falcon_mamba_app.ui.events.probabilities import Probabilities
from falcon_mamba_app.ui.events.shown_prompt import ShownPrompt
from falcon_mamba_app.ui.events.sidebar import Sidebar
from falcon_mamba_app.ui.view.controls import CONTROL_NAMES
from falcon_mamba_app.ui.view.layout import Components

# Settings change in the browser alone; nothing is sent until a message is.
REMEMBER_JS = (
    "(settings, ...values) => [window.presets.changedTo(Object.fromEntries("
    f"{json.dumps(CONTROL_NAMES)}.map((name, i) => [name, values[i]])))]"
)
# A returned message goes into the empty box. A text that was begun meanwhile stays as it is, and
# assets/composer.js offers the message beside it.
RETURN_JS = """(draft, returned) => {
    const keep = {__type__: "update"};
    if (!returned) return [keep, keep];
    if (!draft.trim() || draft === returned) return [returned, ""];
    window.composer.offer(returned);
    return [keep, ""];
}"""
# The contents of the text fields before a reload; restored once.
DRAFTS_JS = "() => [window.takeDrafts()]"
LOAD_JS = """(saved, settings, narrow) => {
    const wanted = new URLSearchParams(location.search).get("c");
    const known = (() => { try { return JSON.parse(saved).id; } catch { return null; } })();
    const asked = wanted && wanted !== known ? JSON.stringify({id: wanted}) : saved;
    return [asked, settings, window.innerWidth < 900];
}"""


def _on(trigger: Any, fn: Callable[..., Any] | None, **options: Any) -> Any:
    """An event of the page alone: no spinner over the outputs, no public endpoint. It is never
    dropped because the one before is still running: the session refuses, in words.
    """
    options = {"trigger_mode": "multiple", **options}
    return trigger(fn, show_progress="hidden", api_visibility="private", **options)


def wire_chat(components: Components, chat: ChatHandlers) -> None:
    outputs = [*components.outputs]
    controls = components.controls.listed()
    composer = components.composer
    _on(composer.submit, chat.send, inputs=[composer, *controls], outputs=outputs)
    _on(components.send.click, chat.send, inputs=[composer, *controls], outputs=outputs)
    _on(components.retry.click, chat.retry, inputs=controls, outputs=outputs)
    _on(components.undo.click, chat.undo, outputs=outputs)
    _on(components.clear.click, chat.clear, outputs=outputs)
    _on(components.stop.click, chat.stop, queue=False)
    box = [composer, components.returned]
    _on(components.returned.change, None, js=RETURN_JS, inputs=box, outputs=box)


def wire_messages(components: Components, messages: MessageActions, comparison: Comparison) -> None:
    _on(
        components.comparison.act,
        comparison.act,
        inputs=components.controls.listed(),
        outputs=[*components.outputs],
    )
    _on(
        components.transcript.act,
        messages.act,
        inputs=components.controls.listed(),
        outputs=[*components.outputs],
    )


def wire_document(components: Components, document: DocumentHandlers) -> None:
    view = components.document_view
    outputs = [*components.outputs]
    controls = components.controls.listed()
    _on(view.extend.click, document.extend, inputs=[view.text, *controls], outputs=outputs)
    _on(view.retry.click, document.retry, inputs=[view.text, *controls], outputs=outputs)
    _on(view.undo.click, document.undo, inputs=[view.text], outputs=outputs)
    _on(view.clear.click, document.clear, outputs=outputs)
    _on(view.stop.click, document.stop, queue=False)


def wire_controls(components: Components, presets: Presets) -> None:
    controls, settings = components.controls, components.settings
    listed = controls.listed()
    outputs = [settings, *controls.outputs]
    _on(controls.presets.act, presets.choose, inputs=listed, outputs=outputs, queue=False)
    system_prompt = controls.components["system_prompt"]
    _on(controls.reset.click, presets.reset, inputs=[system_prompt], outputs=outputs, queue=False)
    for control in listed:
        _on(
            control.input,  # type: ignore[attr-defined]
            None,
            js=REMEMBER_JS,
            inputs=[settings, *listed],
            outputs=[settings],
        )


def wire_looks(
    components: Components,
    *,
    counting: Counting,
    probabilities: Probabilities,
    prompt: ShownPrompt,
    inspection: Inspection,
    files: MemoryFiles,
    books: BookEvents,
    sidebar: Sidebar,
) -> None:
    """The parts that ask, and show the answer themselves."""
    outputs, controls = [*components.outputs], components.controls.listed()
    counter, shown = components.counter, components.sidebar
    _on(counter.look, counting.count, outputs=[counter])
    cost = components.controls.system_cost
    _on(cost.look, counting.system, outputs=[cost])
    sure = components.probabilities
    _on(sure.look, probabilities.look, inputs=controls, outputs=[sure])
    _on(components.prompt.look, prompt.look, inputs=controls, outputs=[components.prompt])
    inside = components.inspection
    _on(inside.look, inspection.look, outputs=[inside])
    _on(components.files.look, files.ticket, outputs=[components.files])
    _on(components.files.act, files.opened, outputs=outputs)
    _on(components.book.look, books.look, outputs=[components.book])
    _on(components.book.act, books.act, outputs=outputs)
    _on(shown.look, sidebar.look, outputs=[shown])
    _on(shown.amend, sidebar.amend, outputs=[shown])
    _on(shown.act, sidebar.open, outputs=outputs)


def wire_arrival(page: gr.Blocks, components: Components, arrival: Arrival) -> None:
    after = [*components.readiness_outputs, *components.controls.outputs]
    loaded = _on(
        page.load,
        arrival.load,
        js=LOAD_JS,
        inputs=[components.saved, components.settings, components.is_narrow],
        outputs=[components.saved, components.side, *after],
    )
    outputs = [*components.outputs]
    _on(loaded.then, arrival.attach, js=DRAFTS_JS, inputs=[components.drafts], outputs=outputs)
    _on(components.refresh.click, arrival.refresh, outputs=outputs)
    _on(
        components.timer.tick,
        arrival.tick,
        inputs=[components.settings],
        outputs=after,
        queue=False,
    )
    page.unload(_hear_of_leaving)


async def _hear_of_leaving() -> None:
    """Never called: browsers hold a heartbeat where there is such an event, and `keep_heartbeats`
    hears its end.
    """
