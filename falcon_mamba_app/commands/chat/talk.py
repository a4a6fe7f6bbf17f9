"""The conversation of one terminal: turns, branches, and what /save writes.

A turn is a response of the server's, and goes on from another one by its id; so going back and
branching send nothing again. It knows no terminal and no HTTP.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from falcon_mamba_app.errors import BackendError, InvalidRequest

Json = dict[str, Any]

MAX_FILE_BYTES = 50_000_000
FORMAT = "falcon-mamba chat 1"


class Server(Protocol):
    """What a conversation needs of a server."""

    def response(self, response_id: str) -> Json: ...
    def reply(self, body: Json) -> Generator[Json, None, None]: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its reply. `response_id` is None where the server knows it no more."""

    question: str
    answer: str
    response_id: str | None
    usage: Json = field(default_factory=dict)
    seconds: float = 0.0
    first_word_s: float = 0.0


class Talk:
    """`turns` lead to where the conversation is now; `branches` are named moments."""

    def __init__(self, server: Server, *, model: str, options: Json | None = None) -> None:
        """`options` are sent with every turn."""
        self._server, self._model, self._options = server, model, options or {}
        self.system_prompt: str | None = None
        self.turns: tuple[Turn, ...] = ()
        self.branches: dict[str, tuple[Turn, ...]] = {}

    def ask(self, question: str, clock: Callable[[], float]) -> Generator[str, None, None]:
        """The pieces of the reply. Closed early, or interrupted, the turn keeps what came."""
        started_s, first_s, text = clock(), 0.0, ""
        response: Json = {}
        events = self._server.reply(self._body(question))
        try:
            for event in events:
                response = event.get("response") or response
                if event["type"] == "response.output_text.delta":
                    first_s = first_s or clock()
                    text += event["delta"]
                    yield event["delta"]
        except (KeyboardInterrupt, GeneratorExit):
            events.close()
            if response.get("id"):
                response = self._server.response(response["id"])
                text = _text_of(response) or text
            raise
        finally:
            events.close()
            if response.get("status") not in (None, "failed"):
                turn = Turn(
                    question,
                    text,
                    response["id"],
                    response.get("usage") or {},
                    seconds=clock() - started_s,
                    first_word_s=first_s - started_s if first_s else 0.0,
                )
                self.turns = (*self.turns, turn)
        if response.get("status") == "failed":
            raise BackendError(f"the reply failed: {(response.get('error') or {}).get('message')}")

    def undo(self) -> Turn:
        """Go back before the last turn, and return it. Raises InvalidRequest."""
        if not self.turns:
            raise InvalidRequest("there is nothing to undo")
        *before, last = self.turns
        self.turns = tuple(before)
        return last

    def branch(self, name: str) -> bool:
        """Go to the moment with this name, or give this moment the name; whether it was there."""
        if name in self.branches:
            self.turns = self.branches[name]
            return True
        self.branches[name] = self.turns
        return False

    def clear(self) -> None:
        self.turns, self.branches = (), {}

    def save(self, path: Path) -> None:
        """Write the conversation for `open`. Raises InvalidRequest."""
        saved = {
            "format": FORMAT,
            "system_prompt": self.system_prompt,
            "turns": [asdict(turn) for turn in self.turns],
            "branches": {
                name: [asdict(turn) for turn in turns] for name, turns in self.branches.items()
            },
        }
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(saved, file, ensure_ascii=False, indent=1)
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be written: {error.strerror}") from None

    def open(self, path: Path) -> None:
        """Go on where `save` was. Raises InvalidRequest."""
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise InvalidRequest(f"{path} has over {MAX_FILE_BYTES} bytes")
            saved = json.loads(path.read_text("utf-8"))
            assert saved["format"] == FORMAT
            turns = tuple(_turn(turn) for turn in saved["turns"])
            branches = {
                str(name): tuple(_turn(turn) for turn in given)
                for name, given in saved["branches"].items()
            }
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError):
            raise InvalidRequest(f"{path} is no conversation that /save wrote") from None
        prompt = saved.get("system_prompt")
        self.system_prompt = prompt if isinstance(prompt, str) else None
        self.turns, self.branches = turns, branches

    def _body(self, question: str) -> Json:
        """The request: by the last response's id, or with all messages where it has gone."""
        body: Json = {"model": self._model, "input": question, **self._options}
        if self.system_prompt:
            body["instructions"] = self.system_prompt
        if not self.turns:
            return body
        last = self.turns[-1].response_id
        if last is not None and self._is_there(last):
            return {**body, "previous_response_id": last}
        items = [
            {"role": role, "content": text}
            for turn in self.turns
            for role, text in (("user", turn.question), ("assistant", turn.answer))
        ]
        return {**body, "input": [*items, {"role": "user", "content": question}]}

    def _is_there(self, response_id: str) -> bool:
        try:
            return bool(self._server.response(response_id)["status"] != "failed")
        except BackendError:
            return False


def _turn(saved: Json) -> Turn:
    turn = Turn(**saved)
    are_texts = isinstance(turn.question, str) and isinstance(turn.answer, str)
    if not are_texts or not isinstance(turn.response_id, str | None):
        raise TypeError("a turn is a question and an answer")
    return turn


def _text_of(response: Json) -> str:
    return "".join(
        part.get("text", "")
        for item in response.get("output", ())
        for part in item.get("content", ())
    )
