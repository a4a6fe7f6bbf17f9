"""Reads the calls out of a reply's text as it grows, in OpenAI's shape.

The grammar in `tools` has written the text, so its fixed parts are known to the letter.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any

from falcon_mamba_app.api.tools import BETWEEN, CLOSING, MIDDLE, NAME, OPENING

Json = dict[str, Any]

START = OPENING.partition("\n")[0]  # a reply that begins so is no text
HEAD = re.compile(f"{re.escape(OPENING)}({NAME.pattern}){re.escape(MIDDLE)}")


class CallReader:
    """Turns the pieces of one reply into deltas: of its content, or of its calls."""

    def __init__(self) -> None:
        self.num_calls = 0
        self._rest = ""  # not told yet
        self._step: Callable[[], list[Json] | None] = self._decide
        self._depth = 0
        self._is_in_text = self._is_escaped = False

    def feed(self, text: str) -> list[Json]:
        """The deltas that are certain after this piece."""
        self._rest += text
        deltas: list[Json] = []
        while (found := self._step()) is not None:
            deltas += found
        return deltas

    def flush(self) -> list[Json]:
        """The rest when no more text comes: a text may end like the beginning of a call."""
        is_text = self._step == self._decide and bool(self._rest)
        return [{"content": self._rest}] if is_text else []

    # Each step returns deltas and names the next step, or returns None to wait for more text.

    def _decide(self) -> list[Json] | None:
        if self._rest.startswith(START):
            self._step = self._head
            return []
        if START.startswith(self._rest):
            return None
        self._step = self._text
        return []

    def _text(self) -> list[Json] | None:
        if not self._rest:
            return None
        text, self._rest = self._rest, ""
        return [{"content": text}]

    def _head(self) -> list[Json] | None:
        head = HEAD.match(self._rest)
        if head is None:
            return None
        self._rest = self._rest[head.end() :]
        self._step = self._arguments
        self.num_calls += 1
        function = {"name": head[1], "arguments": ""}
        call_id = f"call_{secrets.token_hex(12)}"
        return [self._delta({"id": call_id, "type": "function", "function": function})]

    def _arguments(self) -> list[Json] | None:
        if not self._rest:
            return None
        end = self._end_of_object()
        arguments, self._rest = self._rest[:end], self._rest[end:]
        if self._depth == 0:
            self._step = self._closing
        return [self._delta({"function": {"arguments": arguments}})]

    def _end_of_object(self) -> int:
        """Where the object of the arguments ends in what is not told yet, or else all of it."""
        for place, character in enumerate(self._rest):
            if self._is_in_text:
                is_quote = character == '"' and not self._is_escaped
                self._is_escaped = character == "\\" and not self._is_escaped
                self._is_in_text = not is_quote
            elif character == '"':
                self._is_in_text = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return place + 1
        return len(self._rest)

    def _closing(self) -> list[Json] | None:
        end = CLOSING + BETWEEN
        if not self._rest.startswith(end):
            return None
        self._rest = self._rest[len(end) :]
        self._step = self._head
        return []

    def _delta(self, call: Json) -> Json:
        return {"tool_calls": [{"index": self.num_calls - 1, **call}]}


def joined_calls(deltas: list[Json]) -> list[Json]:
    """The whole calls, of all deltas of a reply."""
    calls: list[Json] = []
    for delta in deltas:
        for part in delta.get("tool_calls", ()):
            if part["index"] == len(calls):
                calls.append(
                    {"id": part["id"], "type": part["type"], "function": dict(part["function"])}
                )
            else:
                calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return calls
