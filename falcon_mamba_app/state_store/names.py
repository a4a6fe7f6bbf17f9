"""Names of stored states: hashes, so that a name says nothing and is never used for other contents.

A state is named by the model and the tokens that it has read. So it is never changed, and a stale
one is only a shorter prefix: it costs reading, and never gives a wrong answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

ROOT = "states"
ID_BYTES = 4
PIN = ".pin"
CALLER_END = "."  # in a session's id, after the name of the caller whose sessions lie together
PATH = re.compile(rf"{ROOT}/((?:[0-9a-f]{{16}})?[0-9a-f]{{32}})/(\d{{10}})-([0-9a-f]{{40}})")


@dataclass(frozen=True, slots=True)
class StateName:
    """One state of an owner's; the length stands in its path, so that a listing tells it."""

    owner: str
    num_tokens: int
    digest: str

    @property
    def path(self) -> str:
        return f"{folder_of(self.owner)}/{self.num_tokens:010d}-{self.digest}"

    @property
    def pin_path(self) -> str:
        """An empty object there says that the state is pinned."""
        return self.path + PIN


def parse_path(path: str) -> StateName | None:
    """The state at this path; None for other objects."""
    match = PATH.fullmatch(path)
    return StateName(match[1], int(match[2]), match[3]) if match else None


def owner_of(session_id: str) -> str:
    """The folder's name for a session, whose id is a secret that no name may tell. Those of one
    caller begin alike.
    """
    caller, end, _ = session_id.partition(CALLER_END)
    return (_hashed(caller, 8, b"falcon caller") if end else "") + _hashed(
        session_id, 16, b"falcon session"
    )


def owners_of(caller: str, folders: Iterable[str]) -> set[str]:
    """Those of the folders' names that are of this caller's sessions; `caller` has its end."""
    start = _hashed(caller.removesuffix(CALLER_END), 8, b"falcon caller")
    return {name for name in folders if name.startswith(start) and len(name) > 32}


def _hashed(name: str, num_bytes: int, person: bytes) -> str:
    data = name.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=num_bytes, person=person).hexdigest()


def folder_of(owner: str) -> str:
    return f"{ROOT}/{owner}"


def prefix_digests(model: str, packed_ids: bytes, lengths: Iterable[int]) -> dict[int, str]:
    """The name of each prefix of so many tokens, in one pass over the ids."""
    running = hashlib.blake2b(model.encode(), digest_size=20, person=b"falcon state")
    view, start, names = memoryview(packed_ids), 0, {}
    for length in sorted(set(lengths)):
        end = length * ID_BYTES
        if end > len(view):
            break
        running.update(view[start:end])
        names[length], start = running.copy().hexdigest(), end
    return names
