"""The page as it is wired and served: whose thread its events run in."""

from __future__ import annotations

import inspect
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI
from gradio.routes import App

from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.gradio_patches.spare_apps import make_no_spare_apps
from falcon_mamba_app.ui.page import build_page, mount_page
from falcon_mamba_app.ui.view.controls import CONTROL_NAMES, ControlValues
from falcon_mamba_app.ui.view.parts import ON_LOAD
from tests.support.echo_service import EchoService
from tests.support.page_server import serve_page
from tests.support.web_fixtures import every_route

CONTROLS = [getattr(ControlValues(), name) for name in CONTROL_NAMES]


async def test_every_event_runs_on_the_event_loop():
    """Gradio runs plain functions in threads: Stop then cancelled a task of another thread's loop,
    and the sessions were changed from several threads at a time.
    """
    service = EchoService()
    page, _ = build_page(service, Sessions(service.forget))
    functions = [event.fn for event in page.fns.values() if event.fn is not None]
    ours = [fn for fn in functions if not inspect.unwrap(fn).__module__.startswith("gradio.")]
    assert len(ours) > 20
    threaded = [fn for fn in ours if not _is_async(fn)]
    assert threaded == []


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def test_no_part_of_the_page_has_an_event_with_a_name_of_gradios_own():
    """One named "change" came by itself after every answer, and took the place of a search."""
    ours = re.findall(r"'(\w+)'", ON_LOAD)
    assert len(ours) == 3
    assert not set(ours) & {str(event) for event in gr.HTML.EVENTS}


async def test_gradios_routes_are_made_once_for_a_page(monkeypatch):
    """It made them four times, for applications that nobody serves: half of a page's time."""
    make_no_spare_apps()
    make_no_spare_apps()
    made, create = [], App.create_app._create
    monkeypatch.setattr(
        App.create_app, "_create", lambda *args, **o: made.append(create(*args, **o)) or made[-1]
    )
    mounted = mount_page(FastAPI(), EchoService()).routes[-1].app
    assert made == [mounted]
    assert ("POST", "/gradio_api/queue/join") in every_route(mounted.routes)


class WatchfulService(EchoService):
    """Notes which threads it is called from; so do its sessions, which tell it what to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: dict[str, set[int]] = {}

    def _note(self, call: str) -> None:
        self.threads.setdefault(call, set()).add(threading.get_ident())

    async def start(self) -> None:
        self._note("start")
        await super().start()

    def stats(self):
        self._note("stats")
        return super().stats()

    def forget(self, session_id: str) -> Future[bool]:
        self._note("forget")
        return super().forget(session_id)


class Visitor:
    """A browser tab, as far as the server can tell."""

    def __init__(self, url: str) -> None:
        self._post = partial(httpx.post, timeout=60)
        self._url = f"{url}/gradio_api"
        config = httpx.get(f"{url}/config").json()
        names = {c["id"]: c["props"].get("elem_id") or c["type"] for c in config["components"]}
        self._events = {
            (names.get(target, "page"), event): dependency["id"]
            for dependency in config["dependencies"]
            for target, event in dependency["targets"]
        }

    def cause(self, component: str, event: str, *data: Any) -> str:
        """Let an event happen, and wait for its end; what the server sent last."""
        body = {"data": data, "fn_index": self._events[component, event], "session_hash": "tab"}
        self._post(f"{self._url}/queue/join", json=body).raise_for_status()
        stream = httpx.get(f"{self._url}/queue/data?session_hash=tab", timeout=60).text
        events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
        ends = [event for event in events if event["msg"] == "process_completed"]
        assert [end["success"] for end in ends] == [True], stream
        return stream

    def cause_at_once(self, component: str, event: str, *data: Any) -> None:
        """The same for an event that does not go through Gradio's queue."""
        body = {"data": data, "fn_index": self._events[component, event], "session_hash": "tab"}
        self._post(f"{self._url}/run/predict", json=body).raise_for_status()


@pytest.fixture
def service():
    return WatchfulService()


@pytest.fixture
def visitor(service):
    with serve_page(service) as url:
        yield Visitor(url)


def test_whatever_a_visitor_does_one_thread_does_it(visitor, service):
    [(loop_thread,)] = [service.threads.pop("start")]
    service.threads.clear()
    visitor.cause("page", "load", None, None, False)
    visitor.cause("refresh", "click")
    assert "You said:" in visitor.cause("composer", "submit", "hello", *CONTROLS)
    visitor.cause("undo", "click")
    visitor.cause("clear", "click")
    visitor.cause_at_once("stop", "click")
    visitor.cause_at_once("reset-controls", "click", "")
    visitor.cause_at_once("timer", "tick", None)
    assert service.threads == {"stats": {loop_thread}}
