"""Statements that delete whole conversations, a few at a time."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, func, select

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.library.rows import own_conversation
from falcon_mamba_app.library.tree import Deleted

conversation = schema.conversation
BATCH = 500


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
    """Delete conversations with all that belongs to them."""
    gone: list[str] = []
    num_messages = 0
    while True:
        ids = (
            connection.execute(select(conversation.c.id).where(which).limit(BATCH)).scalars().all()
        )
        if not ids:
            return Deleted(tuple(gone), num_messages)
        counted = select(func.count()).where(schema.message.c.conversation_id.in_(ids))
        num_messages += connection.execute(counted).scalar_one()
        connection.execute(delete(conversation).where(conversation.c.id.in_(ids)))
        gone += ids
