"""Conversations that outlive the server: what the page writes into the library, and finds again."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import gradio as gr
import pytest
from fastapi import FastAPI

from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.library import ConversationRecord, MessageRecord, Tree
from falcon_mamba_app.owners import THIS_MACHINE
from falcon_mamba_app.settings import load_settings
from falcon_mamba_app.ui.conversation.browser_copy import remembered, saved_conversation
from falcon_mamba_app.ui.conversation.kept import Kept
from falcon_mamba_app.ui.conversation.sessions import Lost, Sessions
from falcon_mamba_app.ui.conversation.shelf import CONTINUATIONS
from falcon_mamba_app.ui.events.answering import Answerer
from falcon_mamba_app.ui.events.chat_and_document import ChatHandlers, DocumentHandlers, claim
from falcon_mamba_app.ui.events.memory_files import MemoryFiles
from falcon_mamba_app.ui.events.message_actions import MessageActions
from falcon_mamba_app.ui.view.controls import CONTROL_NAMES, ControlValues
from falcon_mamba_app.visitors import anybody
from tests.faults.test_full_disks import no_room
from tests.support.api_fixtures import in_process
from tests.support.echo_service import EchoService

CONTROLS = tuple(getattr(ControlValues(), name) for name in CONTROL_NAMES)


def asking(page="page", person=None, address="127.0.0.1"):
    state = SimpleNamespace(visitor=anybody(), **({"person": person} if person else {}))
    return gr.Request(
        session_hash=page,
        state=state,
        headers={"host": "127.0.0.1:7860"},
        client=SimpleNamespace(host=address),
    )


class Server:
    """What one process has of the page, without the page."""

    def __init__(self, folder, *argv) -> None:
        self.argv = ("--data-dir", str(folder), *argv)
        self.service = EchoService()

    async def start(self) -> None:
        await self.service.start()
        self.keeping = await Keeping.open(load_settings(self.argv, {}))
        self.kept = Kept(self.keeping, self.service.forget)
        self.sessions = Sessions(self.service.forget, kept=self.kept)
        answerer = Answerer(self.service, max_chars=1_000)
        self.chat = ChatHandlers(self.service, self.sessions, answerer)
        self.actions = MessageActions(self.service, self.sessions, answerer)
        self.document = DocumentHandlers(self.service, self.sessions, answerer)

    async def load(self, request=None, remembered_id=None):
        """The session that a browser gets which opens the page."""
        request = request or asking()
        owner = self.kept.owner_of(request)
        remembered_id = await self.sessions.fetch(remembered_id, owner)
        session, _ = self.sessions.resume(request.session_hash, remembered_id, owner)
        claim(self.sessions, session, request)
        return session

    async def say(self, text, request=None):
        return [update async for update in self.chat.send(text, request or asking(), *CONTROLS)]

    async def act(self, op, node, text="", request=None):
        data = SimpleNamespace(_data={"op": op, "id": node.id, "text": text})
        return [u async for u in self.actions.act(data, request or asking(), *CONTROLS)]

    async def extend(self, text, request=None):
        """Let the model continue the completion page's text."""
        return [u async for u in self.document.extend(text, request or asking(), *CONTROLS)]


@pytest.fixture
async def server(tmp_path):
    server = Server(tmp_path / "data")
    await server.start()
    yield server
    await server.keeping.close()


async def restarted(server):
    await server.keeping.close()
    await server.start()


def texts(messages):
    return [message.content for message in messages]


async def test_a_conversation_goes_on_after_a_restart(server):
    session = await server.load()
    await server.say("one two")
    await restarted(server)
    again = await server.load(remembered_id=session.id)
    assert again.id == session.id and again is not session
    assert texts(again.messages) == ["one two", "You said: one two"]
    await server.say("three")
    assert texts(server.service.requests[-1].prompt) == ["one two", "You said: one two", "three"]
    last = server.service.requests[-1]
    assert last.session_id == session.id and last.keeps_state  # so the state is there too


async def test_the_list_has_titles_and_searches_words(server):
    await server.load()
    await server.say("Which snakes\n are   black?")
    (first,) = (await server.kept.list(THIS_MACHINE)).conversations
    assert (first.title, first.num_messages) == ("Which snakes are black?", 2)
    (hit,) = await server.kept.search(THIS_MACHINE, "said snak")
    assert hit.conversation.id == first.id
    await server.kept.rename(THIS_MACHINE, first.id, "Snakes")
    await server.say("more")
    assert [c.title for c in (await server.kept.list(THIS_MACHINE)).conversations] == ["Snakes"]


async def test_branches_names_and_deletions_come_back(server):
    session = await server.load()
    await server.say("one")
    first = session.tree.head
    await server.act("retry", first)
    await server.act("edit", first.parent, "other")
    await server.act("name", first, "a moment")
    doomed = session.tree.head
    await server.act("delete", doomed)
    await server.act("show", first)
    await restarted(server)
    again = await server.load(remembered_id=session.id)
    assert {node.id for node in again.tree} == {node.id for node in session.tree}
    assert again.tree.head.id == first.id and again.tree.head.name == "a moment"
    assert doomed.id not in {node.id for node in again.tree}
    assert again.tree.place_of(again.tree.head) == (1, 2)


async def test_a_deleted_message_that_is_put_back_is_kept_again(server):
    session = await server.load()
    await server.say("one")
    question = session.tree.roots[0]
    await server.act("delete", question)
    await server.act("restore", question)
    await restarted(server)
    assert texts((await server.load(remembered_id=session.id)).messages) == ["one", "You said: one"]


async def test_a_stopped_reply_keeps_its_words_as_a_stopped_one(server):
    session = await server.load()
    saying = asyncio.create_task(server.say("SLOW " + "word " * 100))
    while session.turn is None or session.turn.reply.completion_tokens < 3:
        await asyncio.sleep(0.01)
    await server.chat.stop(asking())
    await saying
    written = session.tree.head
    await restarted(server)
    again = await server.load(remembered_id=session.id)
    assert again.tree.head.message.content == written.message.content != ""
    assert again.tree.head.facts.is_cut_short


async def test_words_are_in_the_library_while_the_reply_is_written(server):
    session = await server.load()
    saying = asyncio.create_task(server.say("SLOW " + "word " * 100))
    kept = ""
    while len(kept.split()) < 3:
        await asyncio.sleep(0.02)
        try:
            tree = await server.keeping.library.tree(THIS_MACHINE, session.id)
        except NotFound:
            continue
        kept = tree.messages[-1].text if tree.messages[-1].role == "assistant" else ""
    await server.chat.stop(asking())
    await saying


async def test_clear_begins_another_conversation_and_leaves_the_old_one(server):
    session = await server.load()
    await server.say("one")
    [u async for u in server.chat.clear(asking())]
    await server.say("two")
    page = await server.kept.list(THIS_MACHINE)
    assert [c.title for c in page.conversations] == ["two", "one"]
    assert session.id in {c.id for c in page.conversations}


async def test_what_is_kept_is_not_in_the_browser_too(server):
    session = await server.load()
    await server.say("one")
    copy = remembered(saved_conversation(session))
    assert copy.session_id == session.id and copy.messages == ()


async def test_of_a_stranger_nothing_is_kept(server, tmp_path):
    stranger = asking(address="203.0.113.7")
    session = await server.load(stranger)
    await server.say("xyzzy", stranger)
    assert not server.service.requests[-1].keeps_state
    assert texts(remembered(saved_conversation(session)).messages)[0] == "xyzzy"
    await server.keeping.close()
    assert not any(b"xyzzy" in file.read_bytes() for file in (tmp_path / "data").iterdir())
    await server.start()
    assert (await server.load(stranger, session.id)).messages == []


async def test_nobody_opens_a_conversation_of_somebody_else_even_by_its_id(server):
    ada = asking("ada's tab", person="ada")
    session = await server.load(ada)
    await server.say("my secret", ada)
    for other in (asking("bob's tab", person="bob"), asking("tab"), asking(address="203.0.113.7")):
        assert (await server.load(other, session.id)).messages == []
    with pytest.raises(Lost):  # the tab is hers, but she has signed out
        claim(server.sessions, session, asking("ada's tab"))
    await restarted(server)
    bobs = await server.load(asking("new", person="bob"), session.id)
    assert bobs.messages == [] and bobs.id != session.id  # the id alone opens its states
    assert texts((await server.load(ada, session.id)).messages)[0] == "my secret"


async def test_a_session_that_is_freed_keeps_its_states_unless_it_is_deleted(server):
    session = await server.load()
    await server.say("one")
    server.sessions.leave("page")
    server.sessions.grace_s = 0
    server.sessions.sweep()
    assert session.id in server.service.sessions
    await server.kept.delete(THIS_MACHINE, session.id)
    assert session.id not in server.service.sessions
    assert (await server.load(remembered_id=session.id)).messages == []


@pytest.fixture
def impatient(monkeypatch):
    """For the server that is made after it: the library waits a moment for others."""
    monkeypatch.setattr("falcon_mamba_app.library.sqlite.BUSY_TIMEOUT_S", 0.2)


async def test_where_the_library_fails_the_chat_goes_on_and_the_rest_is_written_later(
    impatient, server
):
    session = await server.load()
    await server.say("one")
    file = server.keeping.library.place.file
    holder = __import__("sqlite3").connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    await server.say("two")
    assert texts(session.messages)[-1] == "You said: two"
    assert "another program" in server.kept.notice
    assert texts(remembered(saved_conversation(session)).messages)[-1] == "You said: two"
    holder.close()
    await server.say("three")
    assert server.kept.notice.startswith("Conversations are kept in")
    await restarted(server)
    assert len((await server.load(remembered_id=session.id)).messages) == 6


@pytest.mark.parametrize("trouble", ["full", "gone"])
async def test_a_folder_that_fails_while_the_server_runs_costs_no_word_and_heals(
    server, tmp_path, trouble
):
    session = await server.load()
    await server.say("one")
    folder = server.keeping.library.place.file.parent
    if trouble == "full":
        with no_room():
            await server.say("two")
    else:
        folder.rename(tmp_path / "elsewhere")
        await server.say("two")
        (tmp_path / "elsewhere").rename(folder)
    assert texts(session.messages)[-1] == "You said: two"
    assert "kept in memory only" in server.kept.notice
    await server.say("three")
    assert server.kept.notice.startswith("Conversations are kept in")
    await restarted(server)
    again = await server.load(remembered_id=session.id)
    assert texts(again.messages) == texts(session.messages) and len(again.messages) == 6


async def test_the_completion_pages_text_is_kept_as_chats_are(server):
    session = await server.load()
    await server.extend("Once upon a quokka")
    await server.extend(session.document.text + " And then")
    text, written = session.document.text, list(session.document.continuations)
    assert server.service.requests[-1].keeps_state
    assert "quokka" not in saved_conversation(session)
    await restarted(server)
    (hit,) = await server.kept.search(THIS_MACHINE, "quokka")
    assert hit.conversation.id == session.id and hit.conversation.title.startswith("Once upon a")
    again = await server.load(remembered_id=session.id)
    assert (again.document.text, again.document.continuations) == (text, written)
    assert not len(again.tree)
    undone, *_ = [u async for u in server.document.undo(text, asking())]
    assert undone.document.endswith(" And then")
    await restarted(server)
    assert (await server.load(remembered_id=session.id)).document.text == undone.document
    async for _ in server.document.clear(asking()):
        pass
    await server.extend("Another")
    assert len((await server.kept.list(THIS_MACHINE)).conversations) == 2


async def test_a_text_from_a_file_may_claim_anything(server):
    said = {"role": "user", "created_s": 1.0, "conversation_id": ""}
    claims = ([[0, 5]], 5, [["a", "b"], [3, " upon"], [0]], None)
    for number, claim_ in enumerate(claims):
        first = MessageRecord(
            id="a", parent_id=None, text="Once", extra={CONTINUATIONS: claim_}, **said
        )
        below = MessageRecord(id="b", parent_id="a", text="below", **said)
        record = ConversationRecord(id="", owner="", head_id="b")
        (kept,) = await server.keeping.library.adopt(THIS_MACHINE, Tree(record, (first, below)))
        opened = await server.load(asking(f"page {number}"), kept.id)
        assert opened.document.text == "Once" and texts(opened.messages) == ["below"]
        assert len(opened.document.continuations) == (number == 2)


async def test_a_text_is_in_the_library_before_the_model_has_continued_it(server):
    session = await server.load()
    updates = server.document.extend("A numbat LONG SLOW", asking(), *CONTROLS)
    await anext(updates)
    while not await server.kept.search(THIS_MACHINE, "numbat"):
        await asyncio.sleep(0.01)
    await server.document.stop(asking())
    await updates.aclose()
    while session.shelf._running:
        await asyncio.sleep(0.01)
    await restarted(server)
    again = await server.load(remembered_id=session.id)
    assert again.document.text == session.document.text


async def test_an_export_of_many_is_kept_with_progress_and_the_first_is_shown(server):
    before = await server.load()
    await server.say("here already")
    files = MemoryFiles(server.service, server.sessions, max_chars=1_000)
    app = FastAPI()
    files.add_to(app)
    ticket = await files.ticket(gr.EventData(None, {"op": "open"}), asking())
    talks = [
        json.dumps({"messages": [{"role": "user", "content": f"talk {n}"}]}) for n in range(150)
    ]
    async with in_process(app) as http:
        path = f"http://127.0.0.1:7860/memory/{ticket['ticket']}"
        answer = await http.put(path, content="\n".join(talks))
    *progress, told = [json.loads(line) for line in answer.text.splitlines()]
    assert [one["num_done"] for one in progress] == [100, 150]
    assert (told["num_conversations"], told["num_states"], told["problem"]) == (150, 0, "")
    shown = server.sessions.known("page")
    assert texts(shown.messages) == ["talk 0"] and shown.id != before.id
    assert len((await server.kept.list(THIS_MACHINE, limit=200)).conversations) == 151
    await server.say("and then")
    assert texts(shown.messages)[-1] == "You said: and then"
