"""A conversation with its memory as one file, and what comes from outside as one."""

import json
import struct

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.library.exchange import bundle
from falcon_mamba_app.library.exchange import read as read_export
from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.conversation.memory_file import conversation_of, with_conversation
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.conversation.tree import Facts, Tree
from falcon_mamba_app.ui.events.memory_files import MemoryFiles
from falcon_mamba_app.visitors import anybody
from tests.support.echo_service import EchoService
from tests.support.page_requests import page_request

TENSORS = bytes(range(64))
PAGE = page_request("page")


def state(metadata=None) -> bytes:
    header = json.dumps({"__metadata__": metadata or {}, "x": {"data_offsets": [0, 64]}}).encode()
    return struct.pack("<Q", len(header)) + header + TENSORS


def forked() -> Tree:
    tree = Tree([Message("user", "one"), Message("assistant", "مرحبا 🐍")])
    tree.path[1].name = "the beginning"
    tree.path[1].facts = Facts(context_tokens=5, strip="1x1:/w==", settings="temperature 1")
    other = tree.add(tree.path[0], Message("assistant", "otherwise"))
    tree.add(other, Message("user", "on"))
    return tree


def read(data: bytes) -> Tree:
    return conversation_of(data, max_chars=1_000)


def test_all_branches_come_back_and_the_state_is_untouched():
    data = with_conversation(state({"format": "falcon-mamba-state-1"}), forked())
    assert data.endswith(TENSORS)
    length = struct.unpack("<Q", data[:8])[0]
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert header["__metadata__"]["format"] == "falcon-mamba-state-1"
    tree = read(data)
    assert [(m.role, m.content) for m in tree.messages] == [
        ("user", "one"),
        ("assistant", "مرحبا 🐍"),
    ]
    assert [node.message.content for node in tree] == ["one", "مرحبا 🐍", "otherwise", "on"]
    assert tree.head.name == "the beginning" and tree.head.facts.context_tokens == 5
    assert not {node.id for node in tree} & {node.id for node in forked()}


def kept(*messages, head=0, **others) -> bytes:
    found = {"format": 1, "messages": list(messages), "head": head, **others}
    return state({"conversation": json.dumps(found)})


USER = {"parent": None, "role": "user", "text": "a"}
MODEL = {"parent": 0, "role": "assistant", "text": "b"}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "no saved conversation"),
        (b"nonsense", "no saved conversation"),
        (struct.pack("<Q", 2**60) + b"{}", "no saved conversation"),
        (struct.pack("<Q", 2) + b"[]", "no saved conversation"),
        (state(), "without its conversation"),
        (state({"conversation": "{"}), "damaged"),
        (state({"conversation": "[" * 100_000}), "damaged"),
        (kept(USER, format=2), "not known here"),
        (kept(), "1 to 10,000 messages"),
        (kept(MODEL), "message 1 in this file is damaged"),
        (kept({**USER, "parent": True}), "message 1 in this file is damaged"),
        (kept({**USER, "text": 7}), "message 1 in this file is damaged"),
        (kept({**USER, "role": "system"}), "message 1 in this file is damaged"),
        (kept({**USER, "text": "x" * 1_001}), "1,001 characters"),
        (kept(USER, {**MODEL, "parent": 1}), "message 2 in this file is damaged"),
        (kept(USER, {**USER, "parent": 0}), "message 2 in this file is out of turn"),
        (kept({**MODEL, "parent": None}), "message 1 in this file is out of turn"),
        (kept(USER, head=1), "where its conversation ends"),
        (kept(USER, head=None), "where its conversation ends"),
    ],
)
def test_what_is_no_conversation_is_refused_with_a_sentence(data, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        read(data)


def test_unsound_figures_are_left_out():
    facts = {"context_tokens": True, "tokens_per_s": "fast", "strip": "<b>", "ttft_s": -1}
    tree = read(kept(USER, {**MODEL, "facts": {**facts, "model": "nano", "who": 1}}, head=1))
    assert tree.head.facts == Facts(model="nano")


class Page:
    """One page, its tickets, and the routes over HTTP."""

    def __init__(self) -> None:
        self.service = EchoService()
        self.sessions = Sessions(self.service.forget)
        self.session = self.sessions.of_page("page")
        self.session.tree = forked()
        self.now_s = 0.0
        self.files = MemoryFiles(
            self.service, self.sessions, max_chars=1_000, clock=lambda: self.now_s
        )
        app = FastAPI()
        self.files.add_to(app)
        self.http = TestClient(app)

    async def ticket(self, message_id=None) -> str:
        asked = {"op": "save", "id": message_id}
        given = await self.files.ticket(gr.EventData(None, asked), PAGE)
        return f"/memory/{given['ticket']}"


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr("falcon_mamba_app.ui.events.memory_files.visitor_in", lambda _: anybody())
    page = Page()

    async def export_state(session_id, token_ids=None):
        return state({"echo": session_id, "ids": str(token_ids)})

    async def import_state(session_id, data):
        page.service.sessions[session_id] = 12
        return 12

    page.service.export_state, page.service.import_state = export_state, import_state
    return page


async def test_a_file_opens_as_a_conversation_of_its_own_beside_the_old_one(page):
    saved = page.http.get(await page.ticket())
    assert saved.status_code == 200 and "attachment" in saved.headers["content-disposition"]
    opened = page.http.put(await page.ticket(), content=saved.content)
    assert opened.json() == {"num_tokens": 12, "num_messages": 2}
    shown = page.sessions.of_page("page")
    assert shown.id != page.session.id and shown.id in page.service.sessions
    assert shown.messages == page.session.messages


async def test_an_earlier_memory_is_saved_by_the_ids_that_it_has_read(page, monkeypatch):
    other, last = [*page.session.tree][2:]
    refused = page.http.get(await page.ticket(other.id))
    assert refused.status_code == 400 and "only the newest memory" in refused.json()["detail"]
    ids = {other.id: (5, 6), last.id: (5, 6)}
    monkeypatch.setattr(
        "falcon_mamba_app.ui.events.memory_files.ids_at", lambda shelf, node: ids[node.id]
    )
    saved = page.http.get(await page.ticket(other.id)).content
    assert b"(5, 6)" in saved
    assert read(saved).head.message.content == "otherwise"


async def test_a_ticket_is_good_for_one_transfer_and_two_minutes(page):
    ticket = await page.ticket()
    assert page.http.get(ticket).status_code == 200
    assert page.http.get(ticket).status_code == 404
    late = await page.ticket()
    page.now_s = 121.0
    assert page.http.get(late).status_code == 404
    assert page.http.put("/memory/guessed", content=state()).status_code == 404


async def test_a_file_that_is_refused_changes_nothing(page):
    refused = page.http.put(await page.ticket(), content=b"nonsense")
    assert refused.status_code == 400 and "it may be this app's" in refused.json()["detail"]
    assert page.sessions.of_page("page") is page.session


def talk(*contents: str) -> dict:
    roles = ("user", "assistant") * len(contents)
    said = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    return {"messages": said}


async def test_an_export_of_one_conversation_opens_where_nothing_is_kept(page):
    (tree,), _ = read_export(json.dumps(talk("one", "two")).encode())
    file = bundle(tree, {"a": b"a state"})
    opened = page.http.put(await page.ticket(), content=file).json()
    assert opened == {"num_conversations": 1, "num_messages": 2, "num_states": 1, "problem": ""}
    shown = page.sessions.of_page("page")
    assert [m.content for m in shown.messages] == ["one", "two"] and shown.id != page.session.id
    assert page.service.sessions[shown.id] == 12
    many = json.dumps([talk("one"), talk("two")])
    refused = page.http.put(await page.ticket(), content=many)
    assert refused.status_code == 400 and "has 2 conversations" in refused.json()["detail"]
    assert page.sessions.of_page("page") is shown
