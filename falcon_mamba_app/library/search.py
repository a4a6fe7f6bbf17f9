"""Finding conversations by the words of their titles and messages, with the database's own index.

All words must be there; the last one may be a word's beginning, as of somebody who is typing. The
newest come first: that is also what the index gives without reading all of a common word.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, select, text

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.library.rows import CONVERSATION, conversation_of, tag_of
from falcon_mamba_app.library.tree import Hit

MAX_WORDS = 16
MAX_HITS = 100
# One conversation may hold many hits, so the search reads this many messages at most.
MAX_MESSAGES = 2_000
BATCH = 200
EXCERPT_CHARS = 160

IN_SQLITE = {
    "message": "SELECT rowid FROM message_words WHERE message_words MATCH :query"
    " AND rowid < :before ORDER BY rowid DESC LIMIT :batch",
    "conversation": "SELECT rowid FROM conversation_words WHERE conversation_words MATCH :query"
    " AND rowid < :before ORDER BY rowid DESC LIMIT :batch",
}
IN_POSTGRES = {
    "message": "SELECT number FROM message WHERE owner_tag = :tag"
    " AND to_tsvector('simple', left(text, 100000)) @@ to_tsquery('simple', :query)"
    " AND number < :before ORDER BY number DESC LIMIT :batch",
    "conversation": "SELECT number FROM conversation WHERE owner_tag = :tag"
    " AND to_tsvector('simple', left(title, 100000)) @@ to_tsquery('simple', :query)"
    " AND number < :before ORDER BY number DESC LIMIT :batch",
}


def search(connection: Connection, owner: str, words: str, limit: int) -> tuple[Hit, ...]:
    """At most `limit` conversations: those with the words in their title, then by messages."""
    if not 1 <= limit <= MAX_HITS:
        raise InvalidRequest(f"limit is {limit}; allowed are 1 to {MAX_HITS}", param="limit")
    terms = re.findall(r"\w+", words)[:MAX_WORDS]
    if not terms:
        return ()
    hits: dict[str, Hit] = {}
    for row in _rows(connection, _of_titles(connection, owner, terms, limit)):
        found = conversation_of(row)
        hits[found.id] = Hit(found, None, found.title)
    _add_messages(connection, owner, terms, limit, hits)
    return tuple(hits.values())[:limit]


def _of_titles(connection: Connection, owner: str, terms: list[str], limit: int) -> list[int]:
    return _numbers(connection, "conversation", owner, terms, 2**62, limit)


def _add_messages(
    connection: Connection, owner: str, terms: list[str], limit: int, hits: dict[str, Hit]
) -> None:
    before, seen = 2**62, 0
    while len(hits) < limit and seen < MAX_MESSAGES:
        numbers = _numbers(connection, "message", owner, terms, before, BATCH)
        if not numbers:
            return
        before, seen = numbers[-1], seen + len(numbers)
        for row in _message_rows(connection, numbers):
            if row.conversation_id not in hits and len(hits) < limit:
                found = conversation_of(row)
                hits[found.id] = Hit(found, row.message_id, excerpt(row.text, terms))


def _numbers(
    connection: Connection, table: str, owner: str, terms: list[str], before: int, batch: int
) -> list[int]:
    tag = tag_of(owner)
    if connection.dialect.name == "postgresql":
        query = " & ".join(f"'{term}'" for term in terms) + ":*"
        values = {"tag": tag, "query": query, "before": before, "batch": batch}
        rows: Any = connection.execute(text(IN_POSTGRES[table]), values)
    else:
        column = "text" if table == "message" else "title"
        quoted = " AND ".join(f'{column} : "{term}"' for term in terms)
        # A single letter would match most words.
        query = f"owner_tag : {tag} AND {quoted}" + ("*" if len(terms[-1]) > 1 else "")
        values = {"query": query, "before": before, "batch": batch}
        rows = connection.execute(text(IN_SQLITE[table]), values)
    return list(rows.scalars())


def _rows(connection: Connection, numbers: list[int]) -> list[Any]:
    table = schema.conversation
    found = connection.execute(
        select(*CONVERSATION).where(table.c.number.in_(numbers)).order_by(table.c.updated_s.desc())
    )
    return list(found)


def _message_rows(connection: Connection, numbers: list[int]) -> list[Any]:
    message, above = schema.message, schema.conversation
    found = connection.execute(
        select(
            *CONVERSATION,
            message.c.id.label("message_id"),
            message.c.conversation_id,
            message.c.text,
        )
        .join(above, above.c.id == message.c.conversation_id)
        .where(message.c.number.in_(numbers))
        .order_by(message.c.number.desc())
    )
    return list(found)


def excerpt(whole: str, terms: list[str]) -> str:
    """The words around the first of the terms, on one line."""
    found = [at for at in (whole.lower().find(term.lower()) for term in terms) if at >= 0]
    start = max(0, min(found, default=0) - EXCERPT_CHARS // 4)
    part = " ".join(whole[start : start + EXCERPT_CHARS].split())
    return ("…" if start else "") + part + ("…" if start + EXCERPT_CHARS < len(whole) else "")
