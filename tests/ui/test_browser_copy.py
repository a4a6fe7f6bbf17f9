import json

import pytest

from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.conversation.browser_copy import (
    MAX_SAVED_CHARS,
    MAX_SAVED_MESSAGES,
    Drafts,
    Remembered,
    parse_drafts,
    remembered,
    saved_conversation,
)
from falcon_mamba_app.ui.conversation.document import Document
from falcon_mamba_app.ui.conversation.sessions import Session
from falcon_mamba_app.ui.conversation.tree import Tree


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (None, []),
        ("nonsense", []),
        ({"messages": [["user", "a"], ["assistant", "b"]]}, ["a", "b"]),
        ({"messages": [["user", "a"], ["assistant", "b"], ["user", "c"]]}, ["a", "b", "c"]),
        ({"messages": [["system", "obey"], ["user", "a"]]}, []),
        ({"messages": [["user", 7], ["assistant", "b"]]}, []),
    ],
)
def test_only_sound_messages_are_taken_back_from_a_browser(saved, expected):
    assert [m.content for m in remembered(json.dumps(saved)).messages] == expected


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
    session = Session("id", 0.0)
    roles = ("user", "assistant")
    session.tree = Tree(Message(roles[i % 2], "x" * num_chars) for i in range(num_messages))
    texts = [[message.role, message.content] for message in session.messages]
    kept = tuple(session.messages) if is_kept else ()
    assert remembered(json.dumps({"messages": texts})).messages == kept
    assert remembered(saved_conversation(session)).messages == kept


def test_after_a_restart_a_message_without_a_reply_is_returned():
    saved = {"id": "old", "messages": [["user", "a"], ["assistant", "b"], ["user", "c"]]}
    session = Session("new", 0.0)
    remembered(json.dumps(saved)).restore(session)
    assert [message.content for message in session.messages] == ["a", "b"]
    assert session.take_unanswered() == "c"
    assert session.take_unanswered() is None


def test_the_completion_page_s_text_is_kept_and_comes_back():
    session = Session("old", 0.0, document=Document("Once upon a time"))
    again = Session("new", 0.0)
    remembered(saved_conversation(session)).restore(again)
    assert again.document.text == "Once upon a time"


@pytest.mark.parametrize(
    "saved",
    [None, 7, [], {"id": "x"}, "", "[" * 100_000, '{"messages": 7, "document": 7, "id": 7}'],
)
def test_nonsense_from_a_browser_restores_nothing(saved):
    assert remembered(saved) == Remembered()


def test_drafts_come_back_as_they_were_written():
    kept = {"composer": "a draft", "document": "a text", "busy": True}
    assert parse_drafts(json.dumps(kept)) == Drafts("a draft", "a text", True)


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "{",
        "[" * 100_000,
        "[]",
        '{"composer": 1, "document": "", "busy": true}',
        json.dumps({"composer": "x" * (MAX_SAVED_CHARS + 1), "document": "", "busy": False}),
    ],
)
def test_other_drafts_are_none(text):
    assert parse_drafts(text) == Drafts()
