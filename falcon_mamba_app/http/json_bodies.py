"""How much a JSON body holds, before it is parsed.

Parsers hold Python's lock from beginning to end, in a thread too. A long text takes them
milliseconds; 16 MiB of small values take seconds and gigabytes. So the values are counted first, a
few milliseconds at a time, and the event loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import re

from falcon_mamba_app.http.errors import BodyTooLarge, HttpError

SLICE_BYTES = 64 * 2**10
MAX_STEPS = 500  # strings looked at between two turns of the loop
STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
QUOTE = ord('"')


class NotUtf8(HttpError):
    """JSON between systems is UTF-8 (RFC 8259); others could not be counted."""

    http_status = 400


async def check_values(body: bytes, *, max_values: int) -> None:
    """Raises BodyTooLarge for more values than `max_values`, NotUtf8 for UTF-16 and UTF-32.

    Whether it is JSON at all is left to the parser.
    """
    if len(body) <= max_values:
        return
    if 0 in body[:4]:
        raise NotUtf8("the body is no UTF-8; JSON is read in UTF-8 only")
    if await _marks(body) > max_values and await _values(body, max_values) > max_values:
        raise BodyTooLarge(
            f"the body holds more than {max_values} values, the most that this endpoint reads"
        )


async def _marks(body: bytes) -> int:
    """What could begin a value or part two, in texts as well; that is seldom too many."""
    num_marks = 0
    for start in range(0, len(body), SLICE_BYTES):
        num_marks += _marks_between(body, start, start + SLICE_BYTES)
        await asyncio.sleep(0)
    return num_marks


async def _values(body: bytes, max_values: int) -> int:
    """The same outside of strings, no further than to one more than `max_values`."""
    num_values = at = num_steps = seen = 0
    is_in_string = False
    while at < len(body) and num_values <= max_values:
        end = min(at + SLICE_BYTES, len(body))
        if is_in_string:
            match = STRING.match(body, at, end)
            end = match.end() if match else at
            if end == at and body[at] != QUOTE:
                break  # it ends in the middle of an escape
            is_in_string = end >= len(body) or body[end] != QUOTE
            at = end + (not is_in_string)
        else:
            quote = body.find(b'"', at, end)
            is_in_string = quote >= 0
            end = quote if is_in_string else end
            num_values += _marks_between(body, at, end)
            at = end + is_in_string
        num_steps += 1
        if num_steps == MAX_STEPS or at - seen > SLICE_BYTES:
            num_steps, seen = 0, at
            await asyncio.sleep(0)
    return num_values


def _marks_between(body: bytes, start: int, end: int) -> int:
    return sum(body.count(mark, start, end) for mark in (b",", b"[", b"{"))
