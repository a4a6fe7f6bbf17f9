"""The pages that leave, through a real server: a new Gradio may have moved what is reached."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from types import SimpleNamespace

import httpx
import pytest

from benchmarks.lib.page_client import Tab, page_map
from falcon_mamba_app.settings import LimitSettings
from falcon_mamba_app.ui.events.arrival import Arrival
from falcon_mamba_app.ui.gradio_patches.heartbeat import MAX_LEAVING, Heartbeats
from falcon_mamba_app.visitors import Visitors
from tests.support.services import settled
from tests.support.web_fixtures import serving

NUM_PAGES = 3 * MAX_LEAVING + 1


@pytest.fixture
def heard(monkeypatch) -> list[str]:
    """The pages that the app was told have gone."""
    names: list[str] = []
    leave = Arrival.leave

    def listen(arrival: Arrival, page: str) -> None:
        names.append(page)
        leave(arrival, page)

    monkeypatch.setattr(Arrival, "leave", listen)
    return names


async def test_a_page_that_closes_is_heard_of_once(heard):
    async with (
        serving() as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        tab = Tab(http, await page_map(http))
        await tab.open()
        assert heard == []
        tab.close()
        await settled(lambda: heard == [tab.page])


async def test_a_heartbeat_ends_when_the_server_stops():
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        async with serving() as port:
            address = f"http://127.0.0.1:{port}/gradio_api/heartbeat/one"
            beat = await stack.enter_async_context(http.stream("GET", address))
            lines = await stack.enter_async_context(aclosing(beat.aiter_lines()))
            assert await anext(lines) == "data: ALIVE"


def heartbeats(heard: list[str]) -> Heartbeats:
    """Over a page of nothing."""
    queue = SimpleNamespace(pending_event_ids_session={}, event_ids_to_events={})
    blocks = SimpleNamespace(state_holder=SimpleNamespace(session_data={}), _queue=queue)
    page = SimpleNamespace(get_blocks=lambda: blocks, stop_event=asyncio.Event())
    return Heartbeats(page, heard.append)


async def beat(beats: Heartbeats, name: str, visitor, gone: asyncio.Event, answers: list) -> None:
    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        answers.append(message)

    scope = {"path_params": {"session_hash": name}, "state": {"visitor": visitor}}
    await beats(scope, receive, send)


async def test_many_pages_that_close_at_once_leave_a_few_in_a_turn_of_the_loop():
    """Two hundred that did stopped every reply for 2.9 s."""
    heard: list[str] = []
    beats, gone, answers = heartbeats(heard), asyncio.Event(), []
    visitor = Visitors(LimitSettings()).at("", is_exempt=True)
    opened = [
        asyncio.create_task(beat(beats, f"page {i}", visitor, gone, answers))
        for i in range(NUM_PAGES)
    ]
    await settled(lambda: len(answers) == 2 * NUM_PAGES)
    gone.set()
    steps = [0]
    while len(heard) < NUM_PAGES:
        await asyncio.sleep(0)
        steps.append(len(heard))
    assert max(b - a for a, b in zip(steps, steps[1:], strict=False)) <= MAX_LEAVING
    assert heard == [f"page {i}" for i in range(NUM_PAGES)]
    await asyncio.gather(*opened)


async def test_a_page_that_beats_twice_leaves_with_the_second():
    """A connection may end when the next one of the same page has begun."""
    heard: list[str] = []
    beats, gone = heartbeats(heard), [asyncio.Event(), asyncio.Event()]
    visitor = Visitors(LimitSettings()).at("", is_exempt=True)
    both = [asyncio.create_task(beat(beats, "page", visitor, each, [])) for each in gone]
    await settled(lambda: beats._beating["page"] == 2)
    gone[0].set()
    await both[0]
    assert not heard and not beats._gone
    gone[1].set()
    await both[1]
    await settled(lambda: heard == ["page"])
    assert not beats._beating


async def test_a_heartbeat_that_came_past_the_limits_is_refused():
    """It held as many pages as it liked, for a visitor who was nobody."""
    with pytest.raises(AssertionError, match="came past the layer that limits visitors"):
        await beat(heartbeats([]), "page", None, asyncio.Event(), [])


async def test_a_visitor_holds_as_many_pages_as_conversations():
    async with (
        serving("--share", "--visitor-max-sessions", "1") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        async with client.stream("GET", "/gradio_api/heartbeat/one") as one:
            await anext(one.aiter_lines())
            refused = await client.get("/gradio_api/heartbeat/two")
            assert refused.status_code == 429
            assert "1 pages are open from here" in refused.json()["detail"]
        for _ in range(100):  # its leaving takes a moment to arrive
            async with client.stream("GET", "/gradio_api/heartbeat/two") as two:
                if two.status_code == 200:
                    break
            await asyncio.sleep(0.02)
        assert two.status_code == 200
