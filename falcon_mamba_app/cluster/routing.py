"""Which copy a request belongs to, from its first bytes. Nothing here is about right or wrong: any
copy can answer any request, and the right one has read the conversation already.

In this order: the copy that the request names, in the page's cookie or in an id that a copy made;
the copy that serves the request's session; for a page without cookies, the visitor's copy; else the
visitor's copy unless others have much less to do.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

COOKIE = "falcon_mamba_copy"
SESSION_HEADER = b"x-session-id"
MAX_HEAD_BYTES = 16 * 2**10
# Half a million characters of conversation; a larger body is routed by its visitor.
MAX_BODY_BYTES = 2**20
MAX_KNOWN = 200_000  # sessions and visitors whose copy is remembered, 100 bytes each
# Requests that a visitor's own copy may have more than the idlest before another takes one.
MAX_MORE = 4
API = re.compile(rb"/(v1|tokenize|detokenize|tokenizer_info|load_model|metrics)(/|\?|$)")
GENERATES = re.compile(rb"/v1/(chat/completions|completions|messages|responses|batches)(\?|$)")
# The id of a session, an answer, a file or a batch in the path.
IN_PATH = re.compile(rb"/v1/(?:sessions|responses|conversations|files|batches)/([^/?]{1,400})")
FIELDS = (b'"prompt_cache_key"', b'"previous_response_id"', b'"conversation"', b'"input_file_id"')
VALUE = re.compile(rb'\s*:\s*(?:\{\s*"id"\s*:\s*)?"([^"\\]{1,400})"')
# An id that a copy made ends with the copy's name.
TAGGED = re.compile(rb"(?:resp|conv|file|batch)_[0-9a-f]+-([a-z0-9]{1,16})")


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request, as far as it matters here."""

    path: bytes
    headers: dict[bytes, bytes]
    num_bytes: int

    @classmethod
    def of(cls, data: bytes) -> Head | None:
        """None while the head is not complete."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = data[:end].split(b"\r\n")
        words = first.split(b" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        return cls(words[1] if len(words) > 1 else b"", headers, end + 4)

    @property
    def is_api(self) -> bool:
        return API.search(self.path) is not None

    @property
    def num_needed(self) -> int:
        """How many bytes of the request tell where it belongs: the body too where only that names
        the session.
        """
        length = self.headers.get(b"content-length", b"")
        is_told = SESSION_HEADER in self.headers or b"expect" in self.headers
        if is_told or not length.isdigit() or not GENERATES.search(self.path):
            return self.num_bytes
        return self.num_bytes + min(int(length), MAX_BODY_BYTES)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says about where it belongs."""

    visitor: bytes
    copy: str | None = None
    session: bytes | None = None
    is_api: bool = False
    begins_page: bool = False

    @classmethod
    def by(cls, head: Head, body: bytes, address: str) -> Asked:
        headers = head.headers
        who = headers.get(b"authorization") or headers.get(b"x-api-key") or address.encode()
        visitor = _digest(b"visitor", who)
        if not head.is_api:
            wants = headers.get(b"accept", b"")
            return cls(visitor, _cookie(headers), begins_page=b"text/html" in wants)
        named = [headers[SESSION_HEADER]] if SESSION_HEADER in headers else _in_body(body)
        named += IN_PATH.findall(head.path)
        tags = [tag[1].decode() for name in named if (tag := TAGGED.fullmatch(name))]
        session = _digest(b"session", who, named[0]) if named else None
        return cls(visitor, tags[0] if tags else None, session, is_api=True)


@dataclass(slots=True)
class Load:
    """What a copy has to do: connections with a request of the API, and those of pages."""

    name: str
    num_api: int = 0
    num_page: int = 0


class Routing:
    """Remembers which copy serves a session or a visitor; the longest unused ones are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._turn = 0

    def choose(self, asked: Asked, copies: Iterable[Load]) -> str | None:
        """The name of one of these copies; None without any."""
        loads = {load.name: load for load in copies}
        if not loads:
            return None
        if asked.copy in loads:
            return asked.copy
        if asked.session is not None:
            return self._remembered(asked.session, loads)
        if not asked.is_api:
            return (
                self._idlest(loads) if asked.begins_page else self._remembered(asked.visitor, loads)
            )
        own, idlest = self._remembered(asked.visitor, loads), self._idlest(loads)
        is_much = loads[own].num_api > loads[idlest].num_api + MAX_MORE
        return idlest if is_much else own

    def _remembered(self, key: bytes, loads: dict[str, Load]) -> str:
        name = self._known.pop(key, "")
        if name not in loads:
            name = self._idlest(loads)
        self._known[key] = name
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return name

    def _idlest(self, loads: dict[str, Load]) -> str:
        """The copy with the least to do; equals take turns, so idle sessions are divided too."""
        self._turn += 1
        names = sorted(loads)
        turned = names[self._turn % len(names) :] + names[: self._turn % len(names)]
        return min(turned, key=lambda name: (loads[name].num_api, loads[name].num_page))


def _digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).digest()


def _cookie(headers: dict[bytes, bytes]) -> str | None:
    found = re.search(
        rb"(?:^|;)\s*%s=([a-z0-9]{1,16})" % COOKIE.encode(), headers.get(b"cookie", b"")
    )
    return found[1].decode() if found else None


def _in_body(body: bytes) -> list[bytes]:
    """The names of sessions in a body, as it stands there: within a text their quotes would be
    escaped.
    """
    names = []
    for field in FIELDS:
        at = body.rfind(field)
        if at >= 0 and (found := VALUE.match(body, at + len(field))):
            names.append(found[1])
    return names
