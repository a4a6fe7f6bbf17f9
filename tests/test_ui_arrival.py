from dataclasses import replace

import gradio as gr
import pytest

from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.arrival import Arrival, readiness, render_banner, render_header
from falcon_mamba_app.ui.sessions import Sessions
from falcon_mamba_app.ui.turn import Turn
from tests.echo_service import EchoService

PAGE = gr.Request(session_hash="page")


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


def test_a_base_model_gets_the_completion_page(service):
    stats = service.stats()
    assert readiness(stats).chat["visible"]
    base = replace(stats, model=replace(stats.model, has_chat_template=False))
    assert not readiness(base).chat["visible"]
    assert readiness(base).document_page["visible"]


async def test_a_reload_in_mid_reply_keeps_what_was_shown(service):
    sessions = Sessions(service.forget)
    session = sessions.of_page("before")
    session.messages[:] = [Message("user", "hi"), Message("assistant", "You sa")]
    session.contexts[2] = 1_234
    saved = {"id": session.id, "messages": []}
    transcript, *others = await Arrival(service, sessions).load(saved, None, False, PAGE)
    assert any("1,234" in str(output) for output in others)
    assert not any("cut off" in str(output) for output in others)
    assert [bubble.content[0].text for bubble in transcript] == ["hi", "You sa"]


async def test_a_reply_that_its_page_left_is_marked_as_cut(service):
    sessions = Sessions(service.forget)
    session = sessions.of_page("before")
    session.messages[:] = [Message("user", "hi"), Message("assistant", "You sa")]
    session.turn = Turn(service.generate(None))
    outputs = await Arrival(service, sessions).load({"id": session.id}, None, False, PAGE)
    assert any("cut off by the reload" in str(output) for output in outputs)


async def test_a_reload_before_the_first_word_returns_the_message(service):
    sessions = Sessions(service.forget)
    session = sessions.of_page("before")
    session.messages[:] = [Message("user", "hi")]
    outputs = await Arrival(service, sessions).load({"id": session.id}, None, False, PAGE)
    assert outputs[:2] == ([], "hi")


async def test_leaving_frees_the_session_after_the_grace(service):
    sessions = Sessions(service.forget, grace_s=0.0)
    sessions.of_page("page")
    await Arrival(service, sessions).leave(PAGE)
    sessions.sweep()
    assert len(sessions) == 0
