"""Statements on the states that conversations refer to, and on what goes when they are deleted.

A state is a file elsewhere, under a name that a hash makes; several conversations may refer to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.library.rows import STATE, own_conversation, values_of
from falcon_mamba_app.library.tree import Deleted, StateRecord

table, conversation = schema.state, schema.conversation
BATCH = 500


def note(connection: Connection, owner: str, record: StateRecord) -> None:
    """Refer to a stored state, or change what is known of it."""
    own_conversation(connection, owner, record.conversation_id)
    connection.execute(delete(table).where(*_named(record.conversation_id, record.name)))
    connection.execute(insert(table).values(**values_of(record)))


def of_conversation(
    connection: Connection, owner: str, conversation_id: str
) -> tuple[StateRecord, ...]:
    """The longest first."""
    own_conversation(connection, owner, conversation_id)
    rows = connection.execute(
        select(*STATE)
        .where(table.c.conversation_id == conversation_id)
        .order_by(table.c.num_tokens.desc())
    )
    return tuple(StateRecord(**row._mapping) for row in rows)


def let_go(
    connection: Connection, owner: str, conversation_id: str, names: Sequence[str]
) -> tuple[str, ...]:
    """Refer to these states no more; those of them that nothing refers to now."""
    own_conversation(connection, owner, conversation_id)
    connection.execute(
        delete(table).where(
            table.c.conversation_id == conversation_id, table.c.name.in_(list(names))
        )
    )
    return _unreferred(connection, names)


def delete_conversation(connection: Connection, owner: str, conversation_id: str) -> Deleted:
    own_conversation(connection, owner, conversation_id)
    return _delete(connection, conversation.c.id == conversation_id)


def delete_owner(connection: Connection, owner: str) -> Deleted:
    """Everything of an owner."""
    return _delete(connection, conversation.c.owner == owner)


def delete_older(connection: Connection, before_s: float) -> Deleted:
    """Whatever nobody has used since, but for what is pinned."""
    return _delete(connection, (conversation.c.updated_s < before_s) & ~conversation.c.is_pinned)


def num_owned(connection: Connection, owner: str) -> int:
    counted = select(func.count()).select_from(conversation).where(conversation.c.owner == owner)
    return connection.execute(counted).scalar_one()


def _delete(connection: Connection, which: ColumnElement[bool]) -> Deleted:
    """Delete conversations with all that belongs to them, a few at a time."""
    gone: list[str] = []
    num_messages = 0
    names: set[str] = set()
    while True:
        ids = (
            connection.execute(select(conversation.c.id).where(which).limit(BATCH)).scalars().all()
        )
        if not ids:
            break
        of_these: Any = table.c.conversation_id.in_(ids)
        names |= set(connection.execute(select(table.c.name).where(of_these)).scalars())
        counted = select(func.count()).where(schema.message.c.conversation_id.in_(ids))
        num_messages += connection.execute(counted).scalar_one()
        connection.execute(delete(conversation).where(conversation.c.id.in_(ids)))
        gone += ids
    return Deleted(tuple(gone), num_messages, _unreferred(connection, sorted(names)))


def _unreferred(connection: Connection, names: Sequence[str]) -> tuple[str, ...]:
    still: set[str] = set()
    for at in range(0, len(names), BATCH):
        some = list(names[at : at + BATCH])
        still |= set(
            connection.execute(select(table.c.name).where(table.c.name.in_(some))).scalars()
        )
    return tuple(name for name in names if name not in still)


def _named(conversation_id: str, name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.conversation_id == conversation_id, table.c.name == name
