"""Titles by the model: when they are asked for, what counts as one, and that they cost nothing."""

import gradio as gr
import pytest

from falcon_mamba_app.ui.events.sidebar import Sidebar
from falcon_mamba_app.ui.events.titles import QUESTION, Titles, tidied
from tests.support.echo_service import EchoService
from tests.ui.test_kept import Server, asking


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ('Title: "A fox in Lisbon."\n\nIt is about', "A fox in Lisbon"),
        ("**Les renards de Lisbonne**", "Les renards de Lisbonne"),
        ("ثعلب في لشبونة", "ثعلب في لشبونة"),
        ("I am a language model and this is what I would say about it", None),
        ("…", None),
        ("", None),
    ],
)
def test_a_title_is_taken_out_of_what_the_model_wrote(written, title):
    assert tidied(written) == title


class Titling(EchoService):
    """Answers the question for a title with one."""

    def _reply_words(self, request):
        return ["A", "fox."] if request.is_aside else super()._reply_words(request)


@pytest.fixture
async def server(tmp_path):
    server = Server(tmp_path)
    server.service = Titling(is_bundled=False)
    await server.start()
    yield server
    await server.keeping.close()


def sidebar_of(server) -> Sidebar:
    return Sidebar(server.sessions, None, Titles(server.service), None)


async def title_in(sidebar) -> dict:
    data = gr.EventData(None, {"op": "title", "id": "current"})
    return await sidebar.amend(data, asking())


async def test_a_kept_conversation_gets_a_title_once_and_does_not_notice(server):
    session = await server.load()
    await server.say("Tell me of a fox")
    sidebar, before = sidebar_of(server), server.service.sessions[session.id]
    shown = await sidebar.look(gr.EventData(None, {}), asking())
    assert shown["untitled"] and shown["items"][0]["title"] == "Tell me of a fox"
    shown = await title_in(sidebar)
    assert not shown["untitled"] and shown["items"][0]["title"] == "A fox"
    asked = server.service.requests[-1]
    assert asked.is_aside and asked.session_id == session.id
    assert asked.prompt[-1].content == QUESTION
    assert server.service.sessions[session.id] == before
    assert QUESTION not in [message.content for message in session.messages]

    await server.say("More")
    assert not (await sidebar.look(gr.EventData(None, {}), asking()))["untitled"]


async def test_a_name_that_somebody_gave_stays(server):
    session = await server.load()
    await server.say("Tell me of a fox")
    owner = server.kept.owner_of(asking())
    await server.kept.rename(owner, session.id, "Mine")
    shown = await title_in(sidebar_of(server))
    assert shown["items"][0]["title"] == "Mine"


async def test_nobody_waits_for_a_title_and_the_demonstration_model_is_not_asked(server):
    session = await server.load()
    titles = Titles(server.service)
    assert not titles.is_wanted(session)  # nothing is said yet
    await server.say("Tell me of a fox")
    assert titles.is_wanted(session)
    server.service.running = 1
    assert not titles.is_wanted(session)
    server.service.running, server.service._is_bundled = 0, True
    assert not titles.is_wanted(session)
