"""Parses server-sent events from bytes, as leniently as the standard and OpenAI's clients.

A line ends at CR, LF or both. A byte-order mark, unknown fields and empty data are ignored. One
event's data may span lines, and events may follow each other without the blank line. It knows no
replies: its output is the value of each event, and the comments between them.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.errors import BackendError

MAX_LINE_BYTES = 64 * 2**20  # a scored prompt is one long line
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DONE = "[DONE]"

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Comment:
    """A line that clients ignore; a copy of this app reports its queue in such lines."""

    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """`value` is the data as JSON, or "[DONE]"; `name` is "message" where none was given."""

    name: str
    value: Any


async def events(parts: AsyncIterator[bytes]) -> AsyncGenerator[Event | Comment, None]:
    """The events of a stream. Raises ValueError for data that is no JSON.

    Some servers answer with one JSON value although a stream was requested; that is one event.
    """
    reader = _EventReader()
    async for line in lines(parts):
        for event in reader.feed(line):
            yield event
    for event in reader.flush():
        yield event


async def lines(parts: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The lines of a body.

    httpx's own iterator also splits at U+2028 and the like, which servers send inside JSON.
    """
    rest = bytearray()
    is_first, skips_line_feed = True, False
    async for part in parts:
        if skips_line_feed and part.startswith(b"\n"):
            part = part[1:]  # the LF of a CR LF; the CR has ended the line already
        if part:
            skips_line_feed = part.endswith(b"\r")
        rest += part
        if is_first and len(rest) >= len(BYTE_ORDER_MARK):
            is_first = False
            if rest.startswith(BYTE_ORDER_MARK):
                del rest[: len(BYTE_ORDER_MARK)]
        if b"\n" not in part and b"\r" not in part:
            if len(rest) > MAX_LINE_BYTES:
                raise BackendError(
                    "the server behind --backend-url sent a line of more than"
                    f" {MAX_LINE_BYTES} bytes"
                )
            continue
        *whole, last = _LINE_END.split(rest)
        rest = bytearray(last)
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


class _EventReader:
    """Lines in, events out."""

    def __init__(self) -> None:
        self._name = ""
        self._data: list[str] = []
        self._has_events = False
        self._is_json = False  # the whole body is one value, so its lines are kept

    def feed(self, line: str) -> Iterator[Event | Comment]:
        if self._is_json or (not self._has_events and line.lstrip().startswith(("{", "["))):
            self._is_json = True
            self._data.append(line)
        elif not line:
            yield from self.flush()
        elif line.startswith(":"):
            yield Comment(line[1:].removeprefix(" "))
        else:
            field, _, value = line.partition(":")
            yield from self._read_field(field, value.removeprefix(" "))

    def flush(self) -> Iterator[Event]:
        """The pending event, at the end of an event or of the stream."""
        name, self._name = self._name or "message", ""
        data, self._data = "\n".join(self._data).strip(), []
        if data:
            yield Event(name, _value(data))

    def _read_field(self, field: str, value: str) -> Iterator[Event]:
        if field == "event":
            self._name = value.strip()
        if field != "data":
            return
        self._has_events = True
        self._data.append(value)
        if len(self._data) == 1 and value.strip():
            # Nearly all data is one line, and some servers never send the blank line after it.
            try:
                event = Event(self._name or "message", _value(value.strip()))
            except ValueError:
                return  # the following lines hold the rest
            self._name, self._data = "", []
            yield event


def _value(data: str) -> Any:
    return DONE if data == DONE else json.loads(data)
