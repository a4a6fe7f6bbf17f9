"""The chat in the terminal: driven through a pseudo-terminal, and its conversation on its own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.commands.chat.client import Client
from falcon_mamba_app.commands.chat.talk import Talk
from falcon_mamba_app.errors import BackendError, InvalidRequest
from tests.support.api_fixtures import on_loopback, until
from tests.support.echo_service import EchoService

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


@pytest.fixture
async def service():
    service = EchoService()
    await service.start()
    return service


@pytest.fixture
async def url(service):
    async with on_loopback(create_api(service, api_keys=("a-key",))) as url:
        yield url


@pytest.fixture
def client(url):
    with closing(Client(url, "a-key")) as client:
        yield client


def said(service) -> list[list[str]]:
    return [[message.content for message in request.prompt] for request in service.requests]


class PseudoTerminal:
    """`falcon-mamba chat` as a person sees it."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "falcon_mamba_app", "chat", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "200"},
        )
        os.close(slave)
        self.text = ""

    def type(self, line: str) -> None:
        os.write(self._master, line.encode() + b"\r")

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for(self, words: str) -> str:
        """What came up to these words."""
        end_s = time.monotonic() + DEADLINE_S
        while words not in self.text:
            assert time.monotonic() < end_s, f"{words!r} never came: {self.text!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self._master, 65_536).decode("utf-8", "replace")
                except OSError:
                    assert words in self.text, self.text
        before, _, self.text = self.text.partition(words)
        return before

    def end(self) -> int:
        status = self.process.wait(DEADLINE_S)
        os.close(self._master)
        return status


async def test_a_person_talks_stops_a_reply_goes_back_branches_saves_and_leaves(
    url, service, tmp_path
):
    def talk() -> int:
        terminal = PseudoTerminal("--url", url, "--key", "a-key", "--no-history")
        terminal.wait_for("/help names the commands")
        terminal.type("one")
        terminal.wait_for("You said: one")
        terminal.wait_for("0 carried")
        terminal.type("/branch first")
        terminal.wait_for("this is first, after 1 turns")
        terminal.type("two")
        terminal.wait_for("You said: two")
        terminal.wait_for("carried")
        terminal.type("/undo")
        terminal.wait_for("took back: two")
        terminal.type("LONG SLOW")
        terminal.wait_for("word word")
        terminal.interrupt()
        terminal.wait_for("stopped")
        terminal.wait_for("carried")
        terminal.type("/branch first")
        terminal.wait_for("at first, after 1 turns")
        terminal.type("/stats")
        terminal.wait_for("echo at http")
        terminal.type("/nothing")
        terminal.wait_for("no command /nothing")
        terminal.type(f"/save {tmp_path / 'talk.json'}")
        terminal.type("/new")
        terminal.type(f"/open {tmp_path / 'talk.json'}")
        terminal.wait_for("> one")
        terminal.type("SAY \x16\x1bgone")
        terminal.wait_for("carried")
        terminal.type("/quit")
        return terminal.end()

    assert await asyncio.to_thread(talk) == 0
    first, second, stopped, last = said(service)
    assert (first, second) == (["one"], ["one", "You said: one", "two"])
    assert stopped == ["one", "You said: one", "LONG SLOW"]
    assert last[:2] == ["one", "You said: one"]
    assert service.running == 0
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert [turn["question"] for turn in saved["turns"]] == ["one"]


async def test_lines_of_a_pipe_are_answered_too(url):
    def ask() -> str:
        return subprocess.run(
            [sys.executable, "-m", "falcon_mamba_app", "chat", "--url", url, "--key", "a-key"],
            input="one\n",
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
            timeout=DEADLINE_S,
        ).stdout

    assert "You said: one" in await asyncio.to_thread(ask)


async def test_a_stopped_reply_keeps_its_words_and_goes_on(client, service):
    talk = Talk(client, model="echo")

    def stopped_then_on() -> None:
        pieces = talk.ask("LONG SLOW", time.monotonic)
        assert next(pieces) == "word"
        pieces.close()
        list(talk.ask("two", time.monotonic))

    await asyncio.to_thread(stopped_then_on)
    kept = talk.turns[0].answer
    assert kept.startswith("word") and said(service)[-1] == ["LONG SLOW", kept, "two"]
    await until(lambda: service.running == 0)


async def test_a_saved_conversation_goes_on_at_a_server_that_knows_nothing_of_it(
    client, service, tmp_path
):
    talk = Talk(client, model="echo")
    talk.system_prompt = "Be brief."
    await asyncio.to_thread(lambda: list(talk.ask("one", time.monotonic)))
    talk.branch("here")
    talk.save(tmp_path / "talk.json")
    assert (tmp_path / "talk.json").stat().st_mode & 0o077 == 0
    other = EchoService()
    await other.start()
    async with on_loopback(create_api(other)) as elsewhere:
        with closing(Client(elsewhere)) as there:
            opened = Talk(there, model="echo")
            opened.open(tmp_path / "talk.json")
            assert opened.turns == talk.turns and opened.branches == talk.branches
            await asyncio.to_thread(lambda: list(opened.ask("two", time.monotonic)))
    assert said(other) == [["Be brief.", "one", "You said: one", "two"]]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "falcon-mamba chat 1", "turns": [{"question": 1}]}', "[" * 9_999],
)
async def test_a_file_that_is_no_conversation_costs_a_sentence(content, tmp_path, client):
    (tmp_path / "talk.json").write_text(content)
    talk = Talk(client, model="echo")
    with pytest.raises(InvalidRequest, match="is no conversation"):
        talk.open(tmp_path / "talk.json")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        talk.open(tmp_path)
    with pytest.raises(InvalidRequest, match="cannot be written"):
        talk.save(tmp_path)
    with pytest.raises(InvalidRequest, match="nothing to undo"):
        talk.undo()


async def test_a_wrong_key_a_failing_reply_and_no_server_are_sentences(url):
    def ask(url: str, key: str, text: str) -> None:
        with closing(Client(url, key)) as client:
            list(Talk(client, model="echo").ask(text, time.monotonic))

    for where, key, text, told in (
        (url, "wrong", "one", "API key"),
        (url, "a-key", "BREAK it now", "device failed"),
        ("http://127.0.0.1:9", "a-key", "one", "does not answer"),
    ):
        with pytest.raises(BackendError, match=told):
            await asyncio.to_thread(ask, where, key, text)
