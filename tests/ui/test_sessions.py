import asyncio

import pytest

from falcon_mamba_app.protocol import Message, Waiting
from falcon_mamba_app.settings import LimitSettings
from falcon_mamba_app.ui.conversation.session_ids import SessionIds
from falcon_mamba_app.ui.conversation.sessions import Lost, Sessions
from falcon_mamba_app.ui.conversation.tree import Tree
from falcon_mamba_app.ui.conversation.turn import Turn
from falcon_mamba_app.ui.events.targets import DocumentTarget
from falcon_mamba_app.visitors import Visitors
from tests.support.services import settled

HELLO = [Message("user", "hello"), Message("assistant", "hi")]


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def make(**options):
    forgotten: list[str] = []
    clock = Clock()
    return Sessions(forgotten.append, clock=clock, **options), forgotten, clock


def test_each_page_has_a_conversation_of_its_own():
    sessions, _, _ = make()
    sessions.of_page("a").tree = Tree(HELLO[:1])
    assert sessions.of_page("b").messages == []
    assert sessions.of_page("a").messages == HELLO[:1]


def test_session_ids_cannot_be_guessed():
    sessions, _, _ = make()
    ids = {sessions.of_page(f"page {i}").id for i in range(100)}
    assert len(ids) == 100
    assert all(len(id_) >= 32 for id_ in ids)


def test_a_reload_within_the_grace_finds_the_session_again():
    sessions, forgotten, clock = make(grace_s=60)
    session = sessions.of_page("before")
    session.tree = Tree(HELLO)
    sessions.leave("before")
    clock.now_s = 59
    sessions.sweep()
    assert sessions.resume("after", session.id) == (session, False)
    clock.now_s = 1_000
    sessions.sweep()
    assert forgotten == []


def test_a_session_nobody_comes_back_to_is_freed_with_its_state():
    sessions, forgotten, clock = make(grace_s=60)
    session = sessions.of_page("page")
    sessions.leave("page")
    clock.now_s = 60
    sessions.sweep()
    assert forgotten == [session.id]
    assert len(sessions) == 0


def test_a_session_shown_by_another_page_outlives_one_of_them():
    sessions, forgotten, clock = make(grace_s=60)
    session = sessions.of_page("first tab")
    sessions.resume("second tab", session.id)
    sessions.leave("first tab")
    clock.now_s = 61
    sessions.sweep()
    assert forgotten == []


def test_a_page_whose_connection_broke_goes_on_with_its_session():
    sessions, forgotten, clock = make(grace_s=60)
    session = sessions.of_page("page")
    sessions.leave("page")
    for clock.now_s in (59, 118):  # each act of the page begins the grace anew
        assert sessions.known("page") is session
        sessions.sweep()
    assert forgotten == []


def test_an_event_that_comes_after_its_tab_was_closed_keeps_the_session_no_longer_than_the_grace():
    sessions, forgotten, clock = make(grace_s=60)
    session = sessions.of_page("page")
    sessions.leave("page")
    sessions.known("page")
    assert sessions.has_left
    clock.now_s = 60
    sessions.sweep()
    assert forgotten == [session.id]
    assert not sessions.has_left


def test_a_page_whose_session_is_gone_is_lost():
    sessions, _, clock = make(grace_s=60)
    sessions.of_page("page")
    sessions.leave("page")
    clock.now_s = 60
    sessions.sweep()
    for page in ("page", "never opened"):
        with pytest.raises(Lost):
            sessions.known(page)


def test_a_session_remembers_no_more_pages_than_show_it():
    sessions, _, _ = make()
    session = sessions.of_page("page 0")
    for i in range(1, 100):
        sessions.leave(f"page {i - 1}")
        sessions.resume(f"page {i}", session.id)
    assert session.pages == {"page 99"}
    with pytest.raises(Lost):
        sessions.known("page 98")


async def test_freeing_a_session_ends_its_reply():
    async def never():
        await asyncio.Event().wait()
        yield Waiting(1)

    sessions, _, clock = make(grace_s=60)
    session = sessions.of_page("page")
    turn = session.turn = Turn(never(), DocumentTarget(session, "text"))
    sessions.leave("page")
    assert not turn.is_stopped
    clock.now_s = 60
    sessions.sweep()
    await settled(lambda: turn.is_over)


def test_an_id_the_server_does_not_know_is_never_adopted():
    sessions, _, _ = make()
    session, is_new = sessions.resume("page", "made up")
    assert is_new and session.id != "made up"


def test_an_id_that_the_same_secret_signed_is_adopted_wherever_it_was_made():
    first, other = (make(ids=SessionIds("a secret of sixteen"))[0] for _ in range(2))
    session = first.of_page("page")
    session.tree = Tree(HELLO[:1])
    adopted, is_new = other.resume("page", session.id)
    assert is_new and adopted.id == session.id and adopted.messages == []
    assert other.resume("page 2", session.id) == (adopted, False)
    elsewhere = make(ids=SessionIds("another secret of it"))[0]
    assert elsewhere.resume("page", session.id)[0].id != session.id


def test_an_id_that_is_not_wholly_signed_is_nobodys():
    ids = SessionIds("a secret of sixteen")
    session_id = ids.new()
    other = "y" if session_id[0] == "x" else "x"
    assert ids.is_ours(session_id)
    for wrong in ("", session_id[:-1], session_id + "0", other + session_id[1:], "é" * 64):
        assert not ids.is_ours(wrong)


def test_a_known_id_is_the_session_itself():
    sessions, _, _ = make()
    session = sessions.of_page("page")
    assert sessions.resume("page 2", session.id) == (session, False)


def test_the_longest_unused_session_goes_when_there_are_too_many():
    sessions, forgotten, _ = make(max_sessions=2)
    first, second = sessions.of_page("1"), sessions.of_page("2")
    sessions.of_page("1")
    sessions.of_page("3")
    assert forgotten == [second.id]
    assert sessions.of_page("1") is first


def test_an_idle_session_is_freed_even_if_its_client_never_said_goodbye():
    sessions, forgotten, clock = make(idle_s=3_600)
    session = sessions.of_page("client")
    clock.now_s = 3_600
    sessions.sweep()
    assert forgotten == [session.id]


def test_clearing_begins_another_session_and_the_old_one_can_be_called_back_for_a_while():
    sessions, forgotten, clock = make()
    session = sessions.of_page("page")
    assert sessions.clear("page") is session  # nothing has been said
    sessions.of_page("tab")
    sessions.show("tab", session)
    session.tree = Tree(HELLO)
    anew = sessions.clear("page")
    assert anew is not session and anew.messages == [] and sessions.of_page("tab") is session
    sessions.show("tab", sessions.another())
    assert sessions.is_open_to(session.id, None) and not sessions.is_open_to("guessed", None)
    assert sessions.resume("page", session.id) == (session, False)
    sessions.clear("page")
    clock.now_s += sessions.grace_s
    sessions.sweep()
    assert session.id in forgotten and not sessions.is_open_to(session.id, None)


def test_who_opens_too_many_pages_loses_their_own_oldest_only():
    forgotten: list[str] = []
    sessions = Sessions(forgotten.append)
    visitors = Visitors(LimitSettings(visitor_max_sessions=3))
    ada, bert = visitors.at("203.0.113.1"), visitors.at("203.0.113.2")
    first = sessions.of_page("bert's")
    sessions.claim(first, bert)
    opened = []
    for number in range(4):
        assert forgotten == []
        opened.append(sessions.of_page(f"ada's {number}"))
        sessions.claim(opened[-1], ada)
    assert forgotten == [opened[0].id]
    assert sessions.of_page("bert's") is first


def test_a_session_that_nobody_claimed_cannot_be_used():
    """It would count for nobody, and so have no limits."""
    sessions = Sessions(lambda _: None)
    session = sessions.of_page("page")
    with pytest.raises(AssertionError, match="no visitor has claimed"):
        _ = session.visitor
    ada = Visitors(LimitSettings()).at("203.0.113.1")
    sessions.claim(session, ada)
    assert session.visitor is ada
