"""Gradio's own memory of pages, through a real server: a new Gradio may have moved it."""

from __future__ import annotations

import asyncio
from dataclasses import astuple

import gradio as gr
import httpx
import pytest

from benchmarks.lib.page_client import Tab, page_map
from falcon_mamba_app.ui.gradio_patches import memory
from falcon_mamba_app.ui.view.controls import ControlValues
from tests.support.services import settled
from tests.support.web_fixtures import serving


@pytest.fixture
def served_blocks(monkeypatch) -> list[gr.Blocks]:
    """The Blocks that the server mounts, for a look inside."""
    mounted, mount = [], gr.mount_gradio_app

    def remember(app, blocks, **options):
        mounted.append(blocks)
        return mount(app, blocks, **options)

    monkeypatch.setattr(gr, "mount_gradio_app", remember)
    return mounted


async def test_what_gradio_keeps_for_a_page_goes_with_it(served_blocks, monkeypatch):
    monkeypatch.setattr(memory, "DELAY_S", 0.1)
    async with (
        serving() as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        events, (blocks,) = await page_map(http), served_blocks
        queue, holder = blocks._queue, blocks.state_holder
        for words in ("hello", "SLOW LONG"):
            tabs = [Tab(http, events) for _ in range(5)]
            for tab in tabs:
                await tab.open()
                async for line in tab.send(words):
                    if "decoding" in line:
                        break
            assert len(holder.session_data) == 5
            for tab in tabs:
                tab.close()
            await settled(lambda: not holder.session_data, timeout_s=20)
            assert not holder.time_last_used
            assert not queue.pending_event_ids_session
            assert not len(queue.pending_messages_per_session)


async def test_updates_that_nobody_reads_are_bounded(served_blocks, monkeypatch):
    """A page that has asked for a reply and reads nothing of it."""
    async with (
        serving() as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        tab = Tab(http, await page_map(http))
        await tab.open()
        controls = astuple(ControlValues(max_new_tokens=200))
        body = tab._body("composer", "submit", ["SLOW LONG", *controls])
        await http.post("/gradio_api/queue/join", json=body)
        messages = served_blocks[0]._queue.pending_messages_per_session[tab.page]
        await settled(lambda: messages.qsize() >= memory.MAX_UNREAD_UPDATES, timeout_s=20)
        await asyncio.sleep(1)
        assert messages.qsize() <= memory.MAX_UNREAD_UPDATES + 2
        tab.close()
