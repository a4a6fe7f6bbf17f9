"""How much a JSON body holds, before it is parsed.

Parsers hold Python's lock from beginning to end, in a thread too. A long text takes them
milliseconds; 16 MiB of small values take seconds and gigabytes. So the values are counted first, a
millisecond's worth at a time. What stands in strings does not count: text costs what it weighs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from falcon_mamba_app.http.errors import BodyTooLarge, HttpError

PART_BYTES = 16 * 2**10
COUNTED = b'{[,:"'
OTHER_BYTES = bytes(byte for byte in range(256) if byte not in COUNTED)


class NotUtf8(HttpError):
    """The body is not UTF-8, which RFC 8259 requires; other encodings cannot be counted."""

    http_status = 400


class Structure(NamedTuple):
    """What stands outside of strings: each container is a `{` or a `[`."""

    containers: int
    commas: int
    colons: int


def structure_so_far(body: bytes) -> Iterator[Structure]:
    """What the body holds up to the end of each part of it; the last is the whole body's.

    What is no JSON is counted in some way, and left to the parser.
    """
    containers = commas = colons = start = 0
    is_in_string = False
    while start < len(body):
        end = _end_of_part(body, start)
        # Without escaped quotes every quote opens or closes a string.
        part = body[start:end].replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = part.translate(None, OTHER_BYTES).split(b'"')
        outside = b"".join(pieces[is_in_string::2])
        containers += outside.count(b"{") + outside.count(b"[")
        commas += outside.count(b",")
        colons += outside.count(b":")
        is_in_string ^= len(pieces) % 2 == 0  # the last piece goes on in the next part
        start = end
        yield Structure(containers, commas, colons)


def _end_of_part(body: bytes, start: int) -> int:
    """Where a part may end: an escape is not cut in two."""
    end = min(start + PART_BYTES, len(body))
    part = body[start:end]
    num_backslashes = len(part) - len(part.rstrip(b"\\"))
    return end - num_backslashes % 2 if end < len(body) else end


async def check_values(body: bytes, *, max_values: int) -> None:
    """Raises BodyTooLarge for more values than `max_values`, NotUtf8 for UTF-16 and UTF-32.

    The event loop goes on meanwhile.
    """
    if len(body) <= max_values:
        return
    if 0 in body[:4]:
        raise NotUtf8("the body is no UTF-8; JSON is read in UTF-8 only")
    for so_far in structure_so_far(body):
        if so_far.containers + so_far.commas > max_values:
            raise BodyTooLarge(
                f"the body holds more than {max_values} values, the most that this endpoint reads"
            )
        await asyncio.sleep(0)
