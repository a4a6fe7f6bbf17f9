"""Bodies that were sent compressed, up to a limit: a small body may expand to gigabytes."""

from __future__ import annotations

import asyncio
import zlib

from falcon_mamba_app.http.errors import BodyTooLarge, HttpError, WrongContentType

MAX_EXPANDED_BYTES = 16 * 2**20
# zlib's number for "gzip or zlib, as the header says".
WINDOW_BITS = 47
# Each further file copies what is left of the body.
MAX_FILES = 16
PLAIN, COMPRESSED = ("", "identity"), ("gzip", "x-gzip", "deflate")


class DamagedBody(HttpError):
    """The body is not compressed as it says."""

    http_status = 400


async def expanded(body: bytes, encoding: str) -> bytes:
    """The body without its compression. Raises WrongContentType for an unknown one, BodyTooLarge
    and DamagedBody.
    """
    name = encoding.strip().lower()
    if name in PLAIN:
        return body
    if name not in COMPRESSED:
        raise WrongContentType(
            f"the body is encoded as {encoding[:40]!r}; allowed are gzip, deflate and no encoding"
        )
    return await asyncio.to_thread(_expand, body)


def _expand(body: bytes) -> bytes:
    parts: list[bytes] = []
    room, rest = MAX_EXPANDED_BYTES + 1, body
    try:
        while rest:  # gzip allows several files in one
            if len(parts) == MAX_FILES:
                raise DamagedBody(f"the compressed body holds more than {MAX_FILES} files")
            expander = zlib.decompressobj(WINDOW_BITS)
            parts.append(expander.decompress(rest, room))
            room -= len(parts[-1])
            if room <= 0:
                raise BodyTooLarge(
                    f"the body expands to more than {MAX_EXPANDED_BYTES} bytes, the most that is"
                    " read"
                )
            if not expander.eof:
                raise DamagedBody("the compressed body ends too early; send all of it")
            rest = expander.unused_data
    except zlib.error:
        raise DamagedBody("the body is not compressed as its Content-Encoding says") from None
    return b"".join(parts)
