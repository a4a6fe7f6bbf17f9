"""The page: its components, its handlers, and how it is mounted.

Gradio queues nothing here (`default_concurrency_limit` None): the service decides who waits, and
reports it. Every event is a coroutine or an async generator, so Gradio runs it on the server's own
event loop (plain functions would run in threads). Only this loop touches sessions and replies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import gradio as gr
from fastapi import FastAPI
from gradio.routes import App

from falcon_mamba_app.belongings import Belongings
from falcon_mamba_app.books.books import Books
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
from falcon_mamba_app.ui.events.books import BookEvents
from falcon_mamba_app.ui.events.chat_and_document import ChatHandlers, DocumentHandlers
from falcon_mamba_app.ui.events.comparison import Comparison
from falcon_mamba_app.ui.events.counting import Counting
from falcon_mamba_app.ui.events.endpoints import Endpoints, add_endpoints
from falcon_mamba_app.ui.events.everything import Everything
from falcon_mamba_app.ui.events.inspection import Inspection
from falcon_mamba_app.ui.events.laboratory import Laboratory
from falcon_mamba_app.ui.events.memory_files import MemoryFiles
from falcon_mamba_app.ui.events.message_actions import MessageActions
from falcon_mamba_app.ui.events.page_files import add_page_files
from falcon_mamba_app.ui.events.presets import Presets
from falcon_mamba_app.ui.events.probabilities import Probabilities
from falcon_mamba_app.ui.events.shown_prompt import ShownPrompt
from falcon_mamba_app.ui.events.sidebar import Sidebar
from falcon_mamba_app.ui.events.titles import Titles
from falcon_mamba_app.ui.gradio_patches.heartbeat import keep_heartbeats
from falcon_mamba_app.ui.gradio_patches.hub_people import name_hub_people
from falcon_mamba_app.ui.gradio_patches.memory import PageMemory, keep_readers
from falcon_mamba_app.ui.gradio_patches.spare_apps import make_no_spare_apps
from falcon_mamba_app.ui.gradio_patches.tracebacks import keep_words_out_of_the_log
from falcon_mamba_app.ui.gradio_patches.wrong_calls import refuse_wrong_calls
from falcon_mamba_app.ui.view.head import head
from falcon_mamba_app.ui.view.layout import draw
from falcon_mamba_app.ui.view.theme import build_theme
from falcon_mamba_app.ui.wiring import (
    wire_arrival,
    wire_chat,
    wire_controls,
    wire_document,
    wire_looks,
    wire_messages,
)

# No telemetry. No statistics of the queue either: after every event Gradio would compute them
# again over its last 10,000 events.
GRADIO_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
}


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
    signs_out: bool = False,
) -> FastAPI:
    """Mount the page at "/" of `app`; mount whatever else `app` has before.

    A proxy shows it under `root_path`, a path or a whole address.

    The session of a page that has gone is kept for `keep_session_s`; its unfinished reply ends
    after `alone_s`. With a `session_secret`, pages keep their session's id over a restart, and at
    other copies with the same secret. `signs_in` offers Hugging Face's sign-in, `signs_out` the way
    out of this server's own. Access to the page is not decided here.
    """
    os.environ.update(GRADIO_ENVIRONMENT)
    keep_words_out_of_the_log()
    make_no_spare_apps()
    ids, kept = SessionIds(session_secret), Kept(keeping or Keeping.nowhere(), service.forget)
    sessions = Sessions(service.forget, grace_s=keep_session_s, ids=ids, kept=kept)
    alone_s = min(alone_s, keep_session_s)
    files = MemoryFiles(service, sessions, max_chars=limits.max_message_chars)
    files.add_to(app)
    books = BookEvents(
        service, sessions, getattr(app.state, "books", None) or Books(service, keeping)
    )
    books.add_to(app)
    Laboratory(service).add_to(app)
    add_page_files(app)
    page, leave = build_page(
        service,
        sessions,
        limits=limits,
        alone_s=alone_s,
        files=files,
        books=books,
        belongings=getattr(app.state, "belongings", None),
        signs_in=signs_in,
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
        head=head(signs_out=signs_out),
        footer_links=[],
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
    books: BookEvents | None = None,
    belongings: Belongings | None = None,
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
        wire_chat(components, ChatHandlers(service, sessions, answerer))
        comparison = Comparison(service, sessions, answerer)
        wire_messages(components, MessageActions(service, sessions, answerer), comparison)
        wire_document(components, DocumentHandlers(service, sessions, answerer))
        wire_controls(components, Presets(service))
        arrival = Arrival(service, sessions, answerer, memory)
        books = books or BookEvents(service, sessions, Books(service))
        everything = Everything(sessions, books, belongings)
        wire_looks(
            components,
            counting=Counting(service, sessions, max_message_chars=max_chars),
            probabilities=Probabilities(service, sessions, max_message_chars=max_chars),
            prompt=ShownPrompt(service, sessions, max_message_chars=max_chars),
            inspection=Inspection(service, sessions),
            files=files or MemoryFiles(service, sessions, max_chars=max_chars),
            books=books,
            sidebar=Sidebar(sessions, arrival, Titles(service), everything),
        )
        wire_arrival(page, components, arrival)
    return page, arrival.leave
