"""Reads lines, shows replies as they come, and obeys commands.

The model's text is shown as text: control characters in it do nothing to the terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from falcon_mamba_app.commands.chat.client import Client
from falcon_mamba_app.commands.chat.talk import Talk, Turn
from falcon_mamba_app.errors import FalconMambaError, InvalidRequest

HELP = """\
/undo           take the last turn back
/retry          ask the last question again
/branch [NAME]  name this moment, or go to the one with this name; without a name: all of them
/system [TEXT]  the system prompt of the turns from now on; without a text: none
/save FILE      write the conversation into a file
/open FILE      go on with the conversation in a file
/stats          speed and memory
/new            begin another conversation
/quit           leave; so does Ctrl-D. Ctrl-C stops a reply"""
# A reply's control characters become visible ones, so that no text moves the cursor.
VISIBLE = {code: 0xFFFD for code in (*range(32), *range(127, 160)) if code not in (9, 10)}

ReadLine = Callable[[], str]


class Terminal:
    """One conversation on one console. `read_line` raises EOFError at the end."""

    def __init__(self, talk: Talk, client: Client, console: Console, read_line: ReadLine) -> None:
        self._talk, self._client, self._console, self._read_line = talk, client, console, read_line
        self._commands: dict[str, Callable[[str], None]] = {
            "undo": self._undo,
            "retry": self._retry,
            "branch": self._branch,
            "system": self._system,
            "save": lambda path: self._talk.save(_path(path)),
            "open": self._open,
            "stats": self._stats,
            "new": lambda _: self._talk.clear(),
            "help": lambda _: self._console.print(HELP, markup=False, highlight=False),
        }

    def run(self) -> None:
        """Until the end of the input, or /quit."""
        while True:
            try:
                line = self._read_line().strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                continue  # an empty line: only what was typed goes
            if line in ("/quit", "/exit"):
                return
            try:
                self._obey(line)
            except FalconMambaError as error:
                self._console.print(Text(str(error).translate(VISIBLE), style="red"))

    def _obey(self, line: str) -> None:
        if not line.startswith("/"):
            if line:
                self._ask(line)
            return
        name, _, rest = line[1:].partition(" ")
        if name not in self._commands:
            raise InvalidRequest(f"there is no command /{name[:40]}; /help names them all")
        self._commands[name](rest.strip())

    def _ask(self, question: str) -> None:
        num_turns = len(self._talk.turns)
        try:
            with closing(self._talk.ask(question, time.monotonic)) as pieces:
                for piece in pieces:
                    self._console.print(Text(piece.translate(VISIBLE)), end="", soft_wrap=True)
        except KeyboardInterrupt:
            self._console.print(Text(" … stopped", style="dim"), end="")
        self._console.print()
        if len(self._talk.turns) > num_turns:
            self._console.print(Text(_figures(self._talk.turns[-1]), style="dim"))

    def _undo(self, _: str) -> None:
        taken = self._talk.undo()
        self._console.print(Text(f"took back: {taken.question.translate(VISIBLE)}", style="dim"))

    def _retry(self, _: str) -> None:
        self._ask(self._talk.undo().question)

    def _branch(self, name: str) -> None:
        if name:
            was_there = self._talk.branch(name)
            where = f"{name}, after {len(self._talk.turns)} turns"
            told = f"at {where}" if was_there else f"this is {where}"
        else:
            branches = self._talk.branches.items()
            told = "\n".join(f"{name}: {len(turns)} turns" for name, turns in branches)
        self._console.print(Text(told or "no moment has a name yet", style="dim"))

    def _system(self, text: str) -> None:
        self._talk.system_prompt = text or None

    def _open(self, path: str) -> None:
        self._talk.open(_path(path))
        for turn in self._talk.turns:
            self._console.print(Text(f"> {turn.question.translate(VISIBLE)}", style="bold"))
            self._console.print(Text(turn.answer.translate(VISIBLE)))

    def _stats(self, _: str) -> None:
        model: dict[str, Any] = self._client.model()
        about = model.get("falcon_mamba") or {}
        lines = [f"{model['id']} at {self._client.url}"]
        if about.get("device"):
            lines.append(f"{about['device']}, {about.get('dtype')}, {about.get('kernels')} kernels")
        if about.get("state_bytes"):
            megabytes = about["state_bytes"] / 1e6
            lines.append(f"its memory of a conversation: {megabytes:.2f} MB, however long")
        lines += [_figures(turn) for turn in self._talk.turns[-1:]]
        self._console.print(Text("\n".join(lines), style="dim"))


def _figures(turn: Turn) -> str:
    """What a turn read and wrote, and how fast."""
    usage = turn.usage
    num_written = usage.get("output_tokens", 0)
    num_input = usage.get("input_tokens", 0)
    carried = (usage.get("input_tokens_details") or {}).get("cached_tokens", 0)
    writing_s = turn.seconds - turn.first_word_s
    words = [f"{num_written} tokens"]
    if num_written > 1 and writing_s > 0:
        words.append(f"{(num_written - 1) / writing_s:.0f} a second")
    words.append(f"first word after {turn.first_word_s * 1000:.0f} ms")
    words.append(f"{num_input - carried} read, {carried} carried")
    return " · ".join(words)


def _path(text: str) -> Path:
    if not text:
        raise InvalidRequest("say which file, as /save talk.json")
    return Path(text).expanduser()


def line_reader(history: Path | None) -> ReadLine:
    """Lines of a person with editing and a history, or of a pipe."""
    if not sys.stdin.isatty():
        return _piped_line
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if history is not None:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)) if history else InMemoryHistory()
    )
    return lambda: session.prompt("> ")


def _piped_line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
