"""The page: its components, which event calls which handler, and how it is mounted.

Gradio queues nothing here (`default_concurrency_limit` None): the service decides who waits, and
reports it. Every event is a coroutine or an async generator, so Gradio runs it on the server's own
event loop (plain functions would run in threads). Only this loop touches sessions and replies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.routes import App

from falcon_mamba_app.bundled import ASSETS
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.settings import DEFAULT_LIMITS, LimitSettings
from falcon_mamba_app.ui.conversation.kept import Kept
from falcon_mamba_app.ui.conversation.session_ids import SessionIds
from falcon_mamba_app.ui.conversation.sessions import GRACE_S, Sessions
from falcon_mamba_app.ui.conversation.turn import ALONE_S
from falcon_mamba_app.ui.events.answering import Answerer
from falcon_mamba_app.ui.events.arrival import Arrival
from falcon_mamba_app.ui.events.chat_and_document import ChatHandlers, DocumentHandlers
from falcon_mamba_app.ui.events.counting import Counting
from falcon_mamba_app.ui.events.endpoints import Endpoints, add_endpoints
from falcon_mamba_app.ui.events.memory_files import MemoryFiles
from falcon_mamba_app.ui.events.message_actions import MessageActions
from falcon_mamba_app.ui.events.sidebar import Sidebar
from falcon_mamba_app.ui.gradio_patches.heartbeat import keep_heartbeats
from falcon_mamba_app.ui.gradio_patches.hub_people import name_hub_people
from falcon_mamba_app.ui.gradio_patches.memory import PageMemory, keep_readers
from falcon_mamba_app.ui.gradio_patches.spare_apps import make_no_spare_apps
from falcon_mamba_app.ui.gradio_patches.tracebacks import keep_words_out_of_the_log
from falcon_mamba_app.ui.gradio_patches.wrong_calls import refuse_wrong_calls
from falcon_mamba_app.ui.view.controls import (
    CONTROL_NAMES,
    default_values,
    updates_for,
    values_of,
    with_preset,
)
from falcon_mamba_app.ui.view.head import head
from falcon_mamba_app.ui.view.layout import Components, draw
from falcon_mamba_app.ui.view.theme import build_theme
from falcon_mamba_app.ui.view.updates import SKIP

# No telemetry. No statistics of the queue either: after every event Gradio would compute them
# again over its last 10,000 events.
GRADIO_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
}

# Settings change in the browser alone; nothing is sent until a message is.
REMEMBER_JS = (
    "(settings, ...values) => [Object.fromEntries("
    f"{json.dumps(CONTROL_NAMES)}.map((name, i) => [name, values[i]]))]"
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


def mount_page(
    app: FastAPI,
    service: GenerationService,
    *,
    limits: LimitSettings = DEFAULT_LIMITS,
    keep_session_s: float = GRACE_S,
    alone_s: float = ALONE_S,
    root_path: str = "",
    session_secret: str | None = None,
    keeping: Keeping | None = None,
    signs_in: bool = False,
) -> FastAPI:
    """Mount the page at "/" of `app`; mount whatever else `app` has before.

    A proxy shows it under `root_path`, a path or a whole address.

    The session of a page that has gone is kept for `keep_session_s`; its unfinished reply ends
    after `alone_s`. With a `session_secret`, pages keep their session's id over a restart, and at
    other copies with the same secret. `signs_in` offers Hugging Face's sign-in. Access to the page
    is not decided here.
    """
    os.environ.update(GRADIO_ENVIRONMENT)
    keep_words_out_of_the_log()
    make_no_spare_apps()
    ids, kept = SessionIds(session_secret), Kept(keeping or Keeping.nowhere(), service.forget)
    sessions = Sessions(service.forget, grace_s=keep_session_s, ids=ids, kept=kept)
    alone_s = min(alone_s, keep_session_s)
    files = MemoryFiles(service, sessions, max_chars=limits.max_message_chars)
    files.add_to(app)
    page, leave = build_page(
        service, sessions, limits=limits, alone_s=alone_s, files=files, signs_in=signs_in
    )
    # `max_size` is of events that wait for their turn to begin.
    page.queue(default_concurrency_limit=None, max_size=limits.max_page_events, api_open=False)
    keep_readers(page)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        root_path=root_path,
        theme=build_theme(),
        css_paths=ASSETS / "style.css",
        head=head(),
        footer_links=["api", "gradio"],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        max_file_size="1mb",
    )
    for mounted in _pages(app):
        refuse_wrong_calls(mounted)
        keep_heartbeats(mounted, leave)
        if signs_in:
            name_hub_people(mounted)
    return app


def let_pages_go(app: FastAPI) -> None:
    """End the connections that open pages hold for as long as they are open."""
    for mounted in _pages(app):
        mounted.stop_event.set()


def _pages(app: FastAPI) -> list[App]:
    """What Gradio has mounted in `app`."""
    mounted = [getattr(route, "app", None) for route in app.routes]
    return [page for page in mounted if isinstance(page, App)]


def build_page(
    service: GenerationService,
    sessions: Sessions,
    *,
    limits: LimitSettings = DEFAULT_LIMITS,
    alone_s: float = ALONE_S,
    files: MemoryFiles | None = None,
    signs_in: bool = False,
) -> tuple[gr.Blocks, Callable[[str], None]]:
    """The page's Blocks, with every event wired, and what is to hear of each page that has gone."""
    examples = json.loads((ASSETS / "examples.json").read_text())
    max_chars = limits.max_message_chars
    page = gr.Blocks(
        title="Falcon Mamba", analytics_enabled=False, fill_width=True, fill_height=True
    )
    with page:
        # First: names are given in order, and "clear" shall be the endpoint's, not a button's.
        add_endpoints(Endpoints(service, sessions, max_message_chars=max_chars))
        components = draw(service.stats(), examples)
        if signs_in:  # a Space's; Gradio then adds the routes for it
            gr.LoginButton("Sign in with Hugging Face", elem_id="sign-in", size="sm")
        memory = PageMemory(page)
        answerer = Answerer(
            service, max_chars=max_chars, alone_s=alone_s, is_behind=memory.is_behind
        )
        _wire_chat(components, ChatHandlers(service, sessions, answerer))
        _wire_messages(components, MessageActions(service, sessions, answerer))
        _wire_document(components, DocumentHandlers(service, sessions, answerer))
        _wire_controls(components, service)
        files = files or MemoryFiles(service, sessions, max_chars=max_chars)
        _on(components.files.look, files.ticket, outputs=[components.files])
        _on(components.files.act, files.opened, outputs=[*components.outputs])
        counting = Counting(service, sessions, max_message_chars=max_chars)
        look = components.counter.look
        _on(look, counting.count, outputs=[components.counter])
        arrival = Arrival(service, sessions, answerer, memory)
        _wire_arrival(page, components, arrival)
        sidebar, shown = Sidebar(sessions, arrival), components.sidebar
        _on(shown.look, sidebar.look, outputs=[shown])
        _on(shown.change, sidebar.change, outputs=[shown])
        _on(shown.act, sidebar.open, outputs=[*components.outputs])
    return page, arrival.leave


def _on(trigger: Any, fn: Callable[..., Any] | None, **options: Any) -> Any:
    """An event of the page alone: no spinner over the outputs, no public endpoint. It is never
    dropped because the one before is still running: the session refuses, in words.
    """
    options = {"trigger_mode": "multiple", **options}
    return trigger(fn, show_progress="hidden", api_visibility="private", **options)


def _wire_chat(components: Components, chat: ChatHandlers) -> None:
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


def _wire_messages(components: Components, messages: MessageActions) -> None:
    _on(
        components.transcript.act,
        messages.act,
        inputs=components.controls.listed(),
        outputs=[*components.outputs],
    )


def _wire_document(components: Components, document: DocumentHandlers) -> None:
    view = components.document_view
    outputs = [*components.outputs]
    controls = components.controls.listed()
    _on(view.extend.click, document.extend, inputs=[view.text, *controls], outputs=outputs)
    _on(view.retry.click, document.retry, inputs=[view.text, *controls], outputs=outputs)
    _on(view.undo.click, document.undo, inputs=[view.text], outputs=outputs)
    _on(view.clear.click, document.clear, outputs=outputs)
    _on(view.stop.click, document.stop, queue=False)


def _wire_controls(components: Components, service: GenerationService) -> None:
    controls, settings = components.controls, components.settings
    listed = controls.listed()
    outputs = [settings, *listed]
    for name, button in controls.presets.items():
        choose = partial(_choose_preset, service, name)
        _on(button.click, choose, inputs=listed, outputs=outputs, queue=False)
    reset = partial(_reset_controls, service)
    system_prompt = controls.components["system_prompt"]
    _on(controls.reset.click, reset, inputs=[system_prompt], outputs=outputs, queue=False)
    for control in listed:
        _on(
            control.input,  # type: ignore[attr-defined]
            None,
            js=REMEMBER_JS,
            inputs=[settings, *listed],
            outputs=[settings],
        )


async def _choose_preset(service: GenerationService, name: str, *given: Any) -> list[Any]:
    values = with_preset(values_of(given), name)
    remembered = {field: getattr(values, field) for field in CONTROL_NAMES}
    return [remembered, *updates_for(values, service.stats().model)]


async def _reset_controls(service: GenerationService, system_prompt: str) -> list[Any]:
    model = service.stats().model
    updates = updates_for(default_values(model), model)
    updates[CONTROL_NAMES.index("system_prompt")] = SKIP
    return [{"system_prompt": system_prompt}, *updates]


def _wire_arrival(page: gr.Blocks, components: Components, arrival: Arrival) -> None:
    after = [*components.readiness_outputs, *components.controls.listed()]
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
