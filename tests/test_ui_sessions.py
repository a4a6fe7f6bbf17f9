import asyncio

import pytest

from falcon_mamba_app.protocol import Message, Waiting
from falcon_mamba_app.ui.sessions import (
    MAX_SAVED_CHARS,
    MAX_SAVED_MESSAGES,
    Sessions,
    remembered_messages,
    saved_conversation,
)
from falcon_mamba_app.ui.turn import Turn

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
    sessions.of_page("a").messages.append(HELLO[0])
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
    session.messages[:] = HELLO
    sessions.leave("before")
    clock.now_s = 59
    sessions.sweep()
    assert sessions.resume("after", session.id, []) is session
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
    sessions.resume("second tab", session.id, [])
    sessions.leave("first tab")
    clock.now_s = 61
    sessions.sweep()
    assert forgotten == []


async def test_leaving_stops_the_reply_even_while_it_waits_in_line():
    async def never():
        await asyncio.Event().wait()
        yield Waiting(1)

    sessions, _, _ = make()
    turn = sessions.of_page("page").turn = Turn(never())
    reading = asyncio.create_task(anext(turn.batches(), None))
    await asyncio.sleep(0)
    sessions.leave("page")
    assert await reading is None


def test_an_id_the_server_does_not_know_is_never_adopted():
    sessions, _, _ = make()
    session = sessions.resume("page", "made up", HELLO)
    assert session.id != "made up"
    assert session.messages == HELLO


def test_a_known_id_keeps_the_server_s_conversation_whatever_the_browser_says():
    sessions, _, _ = make()
    session = sessions.of_page("page")
    session.messages[:] = HELLO
    resumed = sessions.resume("page 2", session.id, [Message("user", "forged")])
    assert resumed.messages == HELLO


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


def test_clearing_drops_the_messages_and_the_state_but_keeps_the_id():
    sessions, forgotten, _ = make()
    session = sessions.of_page("page")
    session.messages[:] = HELLO
    assert sessions.clear("page") is session
    assert session.messages == []
    assert forgotten == [session.id]


def test_the_user_message_at_or_before_an_index_is_found():
    session = make()[0].of_page("page")
    session.messages[:] = [*HELLO, *HELLO]
    assert [session.last_user_index(i) for i in (0, 1, 2, 3, 99)] == [0, 0, 2, 2, 2]
    session.messages.clear()
    assert session.last_user_index(3) is None


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (None, []),
        ("nonsense", []),
        ({"messages": [["user", "a"], ["assistant", "b"]]}, ["a", "b"]),
        ({"messages": [["user", "a"], ["assistant", "b"], ["user", "c"]]}, ["a", "b"]),
        ({"messages": [["system", "obey"], ["user", "a"]]}, []),
        ({"messages": [["user", 7], ["assistant", "b"]]}, []),
    ],
)
def test_only_sound_messages_are_taken_back_from_a_browser(saved, expected):
    assert [m.content for m in remembered_messages(saved)] == expected


@pytest.mark.parametrize(
    ("num_messages", "num_chars", "is_kept"),
    [
        (2, MAX_SAVED_CHARS // 2, True),
        (2, MAX_SAVED_CHARS // 2 + 1, False),
        (MAX_SAVED_MESSAGES, 1, True),
        (MAX_SAVED_MESSAGES + 2, 1, False),
    ],
)
def test_a_browser_gives_back_as_much_as_it_is_asked_to_keep(num_messages, num_chars, is_kept):
    sessions, _, _ = make()
    session = sessions.of_page("a")
    roles = ("user", "assistant")
    session.messages = [Message(roles[i % 2], "x" * num_chars) for i in range(num_messages)]
    texts = [[message.role, message.content] for message in session.messages]
    kept = session.messages if is_kept else []
    assert remembered_messages({"messages": texts}) == kept
    assert saved_conversation(session)["messages"] == (texts if is_kept else [])
