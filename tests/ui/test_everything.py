"""The page's "Delete everything": what is kept goes with all that is open, and stays away."""

from __future__ import annotations

import asyncio

import gradio as gr
import pytest

from falcon_mamba_app.books.books import Books
from falcon_mamba_app.errors import LibraryUnavailable
from falcon_mamba_app.owners import THIS_MACHINE
from falcon_mamba_app.ui.events.books import BookEvents
from falcon_mamba_app.ui.events.everything import Everything
from falcon_mamba_app.ui.events.sidebar import Sidebar
from falcon_mamba_app.ui.events.titles import Titles
from tests.support.services import settled
from tests.ui.test_kept import Server, asking

ELSEWHERE = "203.0.113.7"


@pytest.fixture
async def server(tmp_path):
    server = Server(tmp_path / "data", "--users", str(tmp_path / "users"))
    await server.start()
    books = BookEvents(server.service, server.sessions, Books(server.service, server.keeping))
    server.everything = Everything(server.sessions, books)
    server.sidebar = Sidebar(server.sessions, None, Titles(server.service), server.everything)
    yield server
    await server.keeping.close()


async def delete_everything(server, request):
    data = gr.EventData(None, {"op": "delete everything"})
    return await server.sidebar.amend(data, request)


async def test_all_of_a_person_goes_with_the_reply_that_another_tab_writes(server):
    anna, other_tab, tom = asking("a", "anna"), asking("b", "anna"), asking("c", "tom")
    for request in (anna, other_tab, tom):
        await server.load(request)
    await server.say("my own words", anna)
    await server.say("words of tom", tom)
    writing = asyncio.create_task(server.say("SLOW LONG", other_tab))
    session = server.sessions.shown_by("b")
    await settled(lambda: session.turn is not None and session.turn.reply.text)
    shown = await delete_everything(server, anna)
    assert shown["isGone"] and shown["items"] == []
    await writing
    await session.save()  # nothing is written any more, whoever still holds it
    page = await server.kept.list("person anna")
    assert page.conversations == ()
    assert server.sessions.shown_by("a") is None and server.sessions.shown_by("b") is None
    (left,) = (await server.kept.list("person tom")).conversations
    assert left.title == "words of tom" and server.sessions.shown_by("c") is not None


async def test_a_visitor_who_is_not_kept_loses_this_page_alone(server):
    here, neighbour = asking("a", address=ELSEWHERE), asking("b", address=ELSEWHERE)
    for request in (here, neighbour):
        await server.load(request)
        await server.say("words", request)
    shown = await delete_everything(server, here)
    assert shown["isGone"] and not shown["isKept"]
    assert server.sessions.shown_by("a").messages == []
    assert len(server.sessions.shown_by("b").messages) == 2


async def test_trouble_is_told_and_the_browser_keeps_its_part(server):
    async def fails(request):
        raise LibraryUnavailable("the disk is full")

    server.everything._belongings.add("files", fails)
    request = asking("a")
    await server.load(request)
    assert server.kept.owner_of(request) == THIS_MACHINE
    shown = await delete_everything(server, request)
    assert "isGone" not in shown and "disk is full" in shown["problem"]
