"""Token ids packed as 32-bit integers: a prefix of ids is then a prefix of bytes."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

ID_BYTES = 4


def pack_token_ids(token_ids: Sequence[int] | bytes) -> bytes:
    """The ids packed; bytes are packed already and stay as they are."""
    if isinstance(token_ids, bytes):
        return token_ids
    if isinstance(token_ids, array) and token_ids.typecode == "i":
        return token_ids.tobytes()
    return array("i", token_ids).tobytes()
