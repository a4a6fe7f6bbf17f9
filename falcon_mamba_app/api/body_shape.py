"""How many values a body of JSON holds, counted before it is parsed.

A value of two bytes becomes an object of a hundred: 16 MiB of `{},` took half a gigabyte. Text
costs what it weighs, so what stands in strings does not count. It knows no field's name.
"""

from __future__ import annotations

from falcon_mamba_app.errors import InvalidRequest

# 20,000 messages in parts are 60,000 containers; a prompt of ids has 131,072 values by default.
MAX_CONTAINERS = 100_000
MAX_VALUES = 1_000_000
# Looked at in parts, so that no thread is kept waiting for longer than a few milliseconds.
PART_BYTES = 64 * 2**10

STRUCTURE = b'{[,:"'
OTHER_BYTES = bytes(byte for byte in range(256) if byte not in STRUCTURE)


def refuse_too_many_values(data: bytes) -> None:
    """Raises InvalidRequest. What is no JSON is counted in some way, and refused later."""
    if _may_hold(data, MAX_CONTAINERS, b"{[") or _may_hold(data, MAX_VALUES, b",:"):
        _count(data)


def _may_hold(data: bytes, limit: int, characters: bytes) -> bool:
    return sum(data.count(character) for character in characters) > limit


def _count(data: bytes) -> None:
    num_containers = num_values = 0
    is_in_string = False
    start = 0
    while start < len(data):
        end = _end_of_part(data, start)
        # Without escaped quotes every quote opens or closes a string.
        part = data[start:end].replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = part.translate(None, OTHER_BYTES).split(b'"')
        outside = b"".join(pieces[is_in_string::2])
        num_containers += outside.count(b"{") + outside.count(b"[")
        num_values += outside.count(b",") + outside.count(b":")
        is_in_string ^= len(pieces) % 2 == 0  # the last piece goes on in the next part
        if num_containers > MAX_CONTAINERS or num_values > MAX_VALUES:
            raise InvalidRequest(
                f"the body holds over {MAX_VALUES:,} values, or over {MAX_CONTAINERS:,} lists and"
                " objects; this server reads no more in one request"
            )
        start = end


def _end_of_part(data: bytes, start: int) -> int:
    """Where a part may end: an escape is not cut in two."""
    end = min(start + PART_BYTES, len(data))
    part = data[start:end]
    num_backslashes = len(part) - len(part.rstrip(b"\\"))
    return end - num_backslashes % 2 if end < len(data) else end
