"""One message, answered twice and shown side by side."""

from dataclasses import asdict

import gradio as gr
import pytest

from falcon_mamba_app.ui.events.comparison import Comparison
from falcon_mamba_app.ui.view.controls import ControlValues
from tests.support.echo_service import EchoService
from tests.ui.test_chat_and_document import CONTROLS, page_after, until_text
from tests.ui.test_message_actions import PAGE, Talk

OTHERS = asdict(ControlValues(temperature=0.2))


@pytest.fixture
async def talk():
    service = EchoService()
    await service.start()
    talk = Talk(service)
    talk.comparison = Comparison(service, talk.chat.sessions, talk.chat._answerer)
    return talk


def act(talk, op, **more):
    data = gr.EventData(None, {"op": op, **more})
    return talk.comparison.act(data, PAGE, *CONTROLS)


def pair_in(page):
    return [(one["text"], one["pair"]) for one in page["transcript"] if "pair" in one]


async def test_a_message_is_answered_with_two_settings_from_one_state(talk):
    await talk.say("one")
    page = await page_after(act(talk, "ask", text="two", values=OTHERS))
    assert pair_in(page) == [("You said: two", "other"), ("You said: two", "picked")]
    first, second = talk.service.requests[-2:]
    assert first.prompt == second.prompt and first.session_id == second.session_id
    assert (first.sampling.temperature, second.sampling.temperature) == (1.0, 0.2)

    left = talk.session.pair[0]
    page = await page_after(act(talk, "pick", id=left))
    assert pair_in(page) == [] and talk.session.tree.head.id == left
    page = await talk.say("three")
    assert talk.said == ["one", "You said: one", "two", "You said: two", "three", "You said: three"]


async def test_what_goes_on_after_a_pair_ends_it_and_both_branches_are_kept(talk):
    await page_after(act(talk, "ask", text="two", values=OTHERS))
    page = await talk.say("three")
    assert pair_in(page) == []
    assert [one.get("place") for one in page["transcript"]] == [None, 2, None, None]
    left = page["transcript"][1]["branches"][0]
    page = await page_after(act(talk, "show", id=left))
    assert [kind for _, kind in pair_in(page)] == ["picked", "other"]


async def test_while_the_second_is_written_the_first_one_stays_in_sight(talk):
    updates = act(talk, "ask", text="SLOW two", values=OTHERS)
    seen = []
    async for update in updates:
        if isinstance(update.transcript, list) and len(update.transcript) == 2:
            seen.append((update.transcript[1].get("pair"), update.growing))
    assert any(kind == "other" for kind, _ in seen)


async def test_a_stopped_first_reply_is_the_only_one(talk):
    updates = act(talk, "ask", text="LONG SLOW", values=OTHERS)
    await until_text(updates)
    await talk.chat.stop(PAGE)
    async for _ in updates:
        pass
    assert len(talk.session.tree.path[0].children) == 1


@pytest.mark.parametrize("text", ["", "  ", None, 3])
async def test_nothing_to_ask_changes_nothing(talk, text):
    await page_after(act(talk, "ask", text=text, values=OTHERS))
    assert talk.said == []


async def test_a_refused_message_comes_back(talk):
    page = await page_after(act(talk, "ask", text="x" * 1_001, values=OTHERS))
    assert page["returned"] == "x" * 1_001 and len(talk.service.requests) == 0
