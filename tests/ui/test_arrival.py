import json
from dataclasses import replace

import gradio as gr
import pytest

from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.conversation.tree import Facts, Tree
from falcon_mamba_app.ui.events.answering import Answerer
from falcon_mamba_app.ui.events.arrival import Arrival
from falcon_mamba_app.ui.events.chat_and_document import visitor_of
from falcon_mamba_app.ui.gradio_patches.memory import PageMemory
from falcon_mamba_app.ui.view.controls import ControlValues
from falcon_mamba_app.ui.view.readiness import readiness, render_banner, render_header
from falcon_mamba_app.ui.view.updates import SKIP, Update, busy_html
from tests.support.echo_service import EchoService
from tests.support.page_requests import page_request
from tests.support.services import settled

PAGE = page_request("page")


def opened(sessions, page):
    """The page's session, claimed by its visitor as every handler of the page does first."""
    session = sessions.of_page(page)
    sessions.claim(session, visitor_of(page_request(page)))
    return session


@pytest.fixture
async def service():
    service = EchoService()
    await service.start()
    return service


def stats_of(service, **changes):
    return replace(service.stats(), **changes)


def test_the_header_names_the_model_that_speaks(service):
    assert "echo" in render_header(service.stats())


def test_a_bundled_model_is_never_taken_for_the_7b(service):
    stats = service.stats()
    assert "not Falcon Mamba 7B" in render_header(stats)
    big = replace(stats, model=replace(stats.model, is_bundled=False))
    assert "Demonstration" not in render_header(big)


def test_while_the_model_loads_the_page_shows_progress_and_send_waits(service):
    stats = stats_of(service, status="loading", model=None, detail="weights", load_progress=0.35)
    shown = readiness(stats)
    assert shown.banner["visible"]
    assert 'aria-valuenow="35"' in shown.banner["value"]
    assert "weights" in shown.banner["value"]
    assert shown.send["interactive"] is False
    assert "loading" in shown.composer["placeholder"]
    assert shown.timer.active


def test_a_ready_page_polls_no_more(service):
    shown = readiness(service.stats())
    assert not shown.timer.active
    assert not shown.banner["visible"]
    assert shown.send["interactive"]


def test_a_failed_service_says_why(service):
    banner = render_banner(stats_of(service, status="failed", detail="no <memory> left"))
    assert 'role="alert"' in banner
    assert "no &lt;memory&gt; left" in banner


def test_a_base_model_has_the_notebook_alone(service):
    stats = service.stats()
    assert readiness(stats).chat["visible"]
    base = replace(stats, model=replace(stats.model, has_chat_template=False))
    assert not readiness(base).chat["visible"]
    assert "No chat" not in render_header(base)


def test_a_model_whose_template_cannot_chat_says_why_on_the_completion_page(service):
    stats = service.stats()
    reason = "m has a chat template that <drops> words"
    model = replace(stats.model, has_chat_template=False, cannot_chat=reason)
    header = render_header(replace(stats, model=model))
    assert "No chat with this model:</b> m has a chat template that &lt;drops&gt; words" in header


@pytest.fixture
def sessions(service):
    return Sessions(service.forget)


@pytest.fixture
def answerer(service):
    return Answerer(service, max_chars=1_000)


@pytest.fixture
async def arrival(service, sessions, answerer):
    return Arrival(service, sessions, answerer, PageMemory(gr.Blocks()))


async def come(arrival, session_id, *, drafts=None, saved=None) -> list[Update]:
    """What a page shows that opens with a session's id in its browser, update by update."""
    saved = json.dumps({"id": session_id, **(saved or {})})
    await arrival.load(saved, None, False, PAGE)
    return await of_page(arrival.attach(drafts, PAGE))


async def of_page(outputs) -> list[Update]:
    """An event's updates without the last one, which changes nothing."""
    *updates, last = [update async for update in outputs]
    assert last == Update()
    return updates


def shown(update: Update) -> list[str]:
    return [message["text"] for message in update.transcript]


async def test_a_page_that_returns_late_finds_what_nobody_has_freed_yet(service, answerer):
    """On a busy machine a reload found another session: its own arrival freed it."""
    now_s = [0.0]
    sessions = Sessions(service.forget, grace_s=3, clock=lambda: now_s[0])
    arrival = Arrival(service, sessions, answerer, PageMemory(gr.Blocks()))
    session = opened(sessions, "before")
    opened(sessions, "nobody's")
    for page in ("before", "nobody's"):
        sessions.leave(page)
    now_s[0] = 4.0
    await come(arrival, session.id)
    assert sessions.known(PAGE.session_hash) is session
    assert len(sessions) == 1  # the other one was freed


async def test_a_returning_page_shows_its_conversation_and_its_context(sessions, arrival):
    session = opened(sessions, "before")
    session.tree = Tree([Message("user", "hi"), Message("assistant", "You said: hi")])
    session.tree.head.facts = Facts(context_tokens=1_234)
    [update] = await come(arrival, session.id)
    assert shown(update) == ["hi", "You said: hi"]
    assert update.panel["tokens"] == 1_234
    assert "Ready" in update.status
    assert update.busy == busy_html(False)


async def test_a_page_that_comes_back_in_mid_reply_watches_it_to_its_end(
    sessions, arrival, answerer, service
):
    session = opened(sessions, "before")
    values = ControlValues()
    before = answerer.answer("before", session, None, "SLOW one two three", values)
    async for update in before:
        if "said" in str(update.growing):
            break
    await before.aclose()
    first, *others = await come(arrival, session.id)
    assert shown(first)[1].startswith("You said:")
    assert first.busy == busy_html(True)
    assert others[-1].busy == busy_html(False)
    assert shown(others[-1]) == ["SLOW one two three", "You said: SLOW one two three"]
    assert service.requests_total == 1


async def test_another_tab_is_shown_the_change_and_saves_nothing(sessions, arrival, answerer):
    """Each saving is told to the other tabs, so two of them would answer each other for ever."""
    session = opened(sessions, "page")
    session.tree = Tree([Message("user", "hi"), Message("assistant", "You said: hi")])
    [update] = await of_page(arrival.refresh(PAGE))
    assert shown(update) == ["hi", "You said: hi"]
    assert (update.saved, update.status, update.returned) == (SKIP, SKIP, SKIP)
    updates = answerer.answer("page", session, None, "SLOW LONG", ControlValues())
    await anext(updates)
    assert [update async for update in arrival.refresh(PAGE)] == [Update()]
    await updates.aclose()


async def test_a_reply_that_nobody_watched_is_said_to_be_cut(sessions, arrival, answerer):
    session = opened(sessions, "before")
    updates = answerer.answer("before", session, None, "SLOW LONG", ControlValues())
    async for update in updates:
        if "word" in str(update.growing):
            break
    await updates.aclose()
    turn = session.turn
    turn.is_cut = True
    turn.stop()
    await settled(lambda: turn.is_over)
    [update] = await come(arrival, session.id)
    assert "Cut off while you were away" in update.status
    assert shown(update)[1].startswith("word")


async def test_a_reply_that_broke_off_unseen_says_why(sessions, arrival, answerer):
    session = opened(sessions, "before")
    updates = answerer.answer("before", session, None, "please BREAK now", ControlValues())
    await anext(updates)
    turn = session.turn
    await updates.aclose()
    await settled(lambda: turn.is_over)
    [update] = await come(arrival, session.id)
    assert "The device failed" in shown(update)[-1]


async def test_a_message_that_got_no_word_is_returned_once_above_the_draft(
    sessions, arrival, answerer
):
    session = opened(sessions, "before")
    updates = answerer.answer("before", session, None, "hello", ControlValues())
    await anext(updates)
    turn = session.turn
    turn.stop()
    await updates.aclose()
    await settled(lambda: turn.is_over)
    drafts = '{"composer": "a draft", "document": "", "busy": false}'
    [update] = await come(arrival, session.id, drafts=drafts)
    assert (shown(update), update.returned) == ([], "hello\na draft")
    [update] = await come(arrival, session.id)
    assert update.returned == SKIP


async def test_after_a_restart_the_browser_s_copy_counts(arrival):
    saved = {"messages": [["user", "a"], ["assistant", "b"], ["user", "c"]], "document": "text"}
    [update] = await come(arrival, "of another server", saved=saved)
    assert (shown(update), update.returned, update.document) == (["a", "b"], "c", "text")


@pytest.mark.parametrize(
    ("is_busy", "text"), [("false", "as I left it"), ("true", "as the server knows it")]
)
async def test_a_text_edited_by_hand_survives_a_reload(sessions, arrival, is_busy, text):
    session = opened(sessions, "before")
    session.document.text = "as the server knows it"
    drafts = f'{{"composer": "", "document": "as I left it", "busy": {is_busy}}}'
    [update] = await come(arrival, session.id, drafts=drafts)
    assert update.document == text


async def test_leaving_frees_the_session_after_the_grace(service):
    sessions = Sessions(service.forget, grace_s=0.0)
    sessions.of_page("page")
    answerer = Answerer(service, max_chars=1)
    Arrival(service, sessions, answerer, PageMemory(gr.Blocks())).leave("page")
    sessions.sweep()
    assert len(sessions) == 0
