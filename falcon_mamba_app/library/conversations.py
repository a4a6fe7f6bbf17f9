"""Statements on whole conversations: make, find, list, change, fork, delete.

Each takes a connection within a transaction, and the owner; nothing of another owner is found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, insert, select, tuple_, update

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.errors import Conflict, InvalidRequest, NotFound
from falcon_mamba_app.library.rows import (
    BRANCH,
    CONVERSATION,
    conversation_of,
    own_conversation,
    own_message,
    storable,
    tag_of,
    values_of,
)
from falcon_mamba_app.library.tree import BranchRecord, ConversationRecord, Page

MAX_TITLE_CHARS = 200
MAX_NAME_CHARS = 100
MAX_PAGE = 200
MAX_NUMBER = 2**63 - 1  # of a row
CHANGEABLE = {
    *("title", "system_prompt", "settings", "extra", "folder", "is_pinned", "is_archived"),
}

table = schema.conversation


def create(connection: Connection, record: ConversationRecord) -> ConversationRecord:
    record = replace(record, **_checked({"title": record.title, "folder": record.folder}))
    record = replace(record, system_prompt=storable(record.system_prompt))
    connection.execute(insert(table).values(owner_tag=tag_of(record.owner), **values_of(record)))
    return record


def has(connection: Connection, conversation_id: str) -> bool:
    found = connection.execute(select(table.c.number).where(table.c.id == conversation_id))
    return found.first() is not None


def listed(
    connection: Connection,
    owner: str,
    *,
    limit: int,
    cursor: str | None,
    is_archived: bool | None,
    is_pinned: bool | None,
    folder: str | None,
) -> Page:
    """The pinned ones first, then the one changed last."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"limit is {limit}; allowed are 1 to {MAX_PAGE}", param="limit")
    order = (table.c.is_pinned, table.c.updated_s, table.c.number)
    statement = select(*CONVERSATION, table.c.number).where(table.c.owner == owner)
    for column, value in (
        (table.c.is_archived, is_archived),
        (table.c.is_pinned, is_pinned),
        (table.c.folder, folder),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if cursor is not None:
        statement = statement.where(tuple_(*order) < tuple_(*_read_cursor(cursor)))
    rows: Any = connection.execute(
        statement.order_by(*(column.desc() for column in order)).limit(limit + 1)
    ).all()
    more = len(rows) > limit
    return Page(
        tuple(map(conversation_of, rows[:limit])), _cursor(rows[limit - 1]) if more else None
    )


def context_tokens(connection: Connection, owner: str, ids: Sequence[str]) -> dict[str, int]:
    """What each conversation has read and written up to its head, where that is known."""
    head = schema.message
    statement = (
        select(table.c.id, head.c.context_tokens)
        .join(head, head.c.id == table.c.head_id)
        .where(table.c.owner == owner, table.c.id.in_(ids), head.c.context_tokens.is_not(None))
    )
    return {row.id: row.context_tokens for row in connection.execute(statement)}


def change(
    connection: Connection,
    owner: str,
    conversation_id: str,
    changes: dict[str, Any],
    expected_version: int | None = None,
) -> ConversationRecord:
    """Rename, pin, archive, move, set up. Does not count as use: the date stays."""
    unknown = set(changes) - CHANGEABLE
    assert not unknown, f"no change of a conversation: {unknown}"
    return _update(connection, owner, conversation_id, _checked(changes), expected_version)


def set_head(
    connection: Connection,
    owner: str,
    conversation_id: str,
    message_id: str | None,
    expected_version: int | None = None,
) -> ConversationRecord:
    """Go on from another message; None from before the first one."""
    if message_id is not None:
        own_message(connection, owner, message_id, conversation_id)
    return _update(connection, owner, conversation_id, {"head_id": message_id}, expected_version)


def grow(
    connection: Connection,
    owner: str,
    conversation_id: str,
    *,
    head_id: str,
    num_messages: int = 0,
    num_tokens: int = 0,
    expected_version: int | None = None,
) -> ConversationRecord:
    """The conversation after new messages. As the first statement it also takes the row, so that
    another process that writes to the conversation waits.
    """
    changes = {
        "head_id": head_id,
        "num_messages": table.c.num_messages + num_messages,
        "num_tokens": table.c.num_tokens + num_tokens,
        "updated_s": time.time(),
    }
    return _update(connection, owner, conversation_id, changes, expected_version)


def branches(connection: Connection, conversation_id: str) -> tuple[BranchRecord, ...]:
    found = connection.execute(
        select(*BRANCH)
        .where(schema.branch.c.conversation_id == conversation_id)
        .order_by(schema.branch.c.name)
    )
    return tuple(BranchRecord(*row) for row in found)


def name_branch(
    connection: Connection, owner: str, conversation_id: str, name: str, message_id: str
) -> BranchRecord:
    """Give a message a name; the name moves here if the conversation has it already."""
    name = storable(name.strip())
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise InvalidRequest(
            f"the name has {len(name)} characters; allowed are 1 to {MAX_NAME_CHARS}", param="name"
        )
    own_message(connection, owner, message_id, conversation_id)
    _drop_branch(connection, conversation_id, name)
    connection.execute(
        insert(schema.branch).values(
            conversation_id=conversation_id, name=name, message_id=message_id
        )
    )
    return BranchRecord(name, message_id)


def unname_branch(connection: Connection, owner: str, conversation_id: str, name: str) -> None:
    own_conversation(connection, owner, conversation_id)
    if not _drop_branch(connection, conversation_id, storable(name.strip())):
        raise NotFound(f"the conversation has no branch {name!r}")


def _drop_branch(connection: Connection, conversation_id: str, name: str) -> bool:
    gone = connection.execute(
        delete(schema.branch).where(
            schema.branch.c.conversation_id == conversation_id, schema.branch.c.name == name
        )
    )
    return gone.rowcount > 0


def _update(
    connection: Connection,
    owner: str,
    conversation_id: str,
    changes: dict[str, Any],
    expected_version: int | None,
) -> ConversationRecord:
    statement = update(table).where(table.c.id == conversation_id, table.c.owner == owner)
    if expected_version is not None:
        statement = statement.where(table.c.version == expected_version)
    row = connection.execute(
        statement.values(version=table.c.version + 1, **changes).returning(*CONVERSATION)
    ).first()
    if row is not None:
        return conversation_of(row)
    now = own_conversation(connection, owner, conversation_id)
    raise Conflict(
        f"the conversation has been changed meanwhile (version {now.version}, expected was"
        f" {expected_version}); read it again"
    )


def _checked(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes with texts that every database takes. Titles are cut, folders refused."""
    checked = dict(changes)
    if "title" in changes:
        checked["title"] = " ".join(storable(changes["title"]).split())[:MAX_TITLE_CHARS]
    if "system_prompt" in changes:
        checked["system_prompt"] = storable(changes["system_prompt"])
    if "folder" in changes:
        checked["folder"] = folder = " ".join(storable(changes["folder"]).split())
        if len(folder) > MAX_NAME_CHARS:
            raise InvalidRequest(
                f"the folder's name has {len(folder)} characters; allowed are {MAX_NAME_CHARS}",
                param="folder",
            )
    return checked


def _cursor(row: Any) -> str:
    return f"{int(row.is_pinned)}:{row.updated_s!r}:{row.number}"


def _read_cursor(cursor: str) -> tuple[bool, float, int]:
    try:
        is_pinned, updated_s, number = cursor.split(":")
        found = bool(int(is_pinned)), float(updated_s), int(number)
    except (ValueError, OverflowError):
        found = False, 0.0, -1
    if not 0 <= found[2] <= MAX_NUMBER:
        raise InvalidRequest("the cursor is not one of this list", param="cursor")
    return found
