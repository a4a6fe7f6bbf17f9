"""Statements that delete: messages alone, messages with all that follows them, conversations.

After any of them a conversation counts what it has left, and goes on from a message that is there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.library.rows import own_conversation, own_message
from falcon_mamba_app.library.tree import ConversationRecord, Deleted

message, conversation = schema.message, schema.conversation
BATCH = 500


def remove_alone(
    connection: Connection, owner: str, conversation_id: str, message_ids: Sequence[str]
) -> ConversationRecord:
    """Delete these messages; what followed one now follows its parent. Raises NotFound for a
    message that is not in the owner's conversation.
    """
    for message_id in message_ids:
        found = own_message(connection, owner, message_id, conversation_id)
        follows = message.c.parent_id == message_id
        connection.execute(update(message).where(follows).values(parent_id=found.parent_id))
        take_out(connection, conversation_id, [message_id])
        _move_head(connection, conversation_id, found.parent_id)
    return _counted_anew(connection, owner, conversation_id)


def remove_branch(connection: Connection, owner: str, message_id: str) -> ConversationRecord:
    """Delete a message and all that follows it; a head in there becomes the message before."""
    found = own_message(connection, owner, message_id)
    take_out(connection, found.conversation_id, [message_id])
    _move_head(connection, found.conversation_id, found.parent_id)
    return _counted_anew(connection, owner, found.conversation_id)


def take_out(connection: Connection, conversation_id: str, message_ids: Sequence[str]) -> None:
    """Delete messages with all that follows them; the conversation's own row stays as it is."""
    for at in range(0, len(message_ids), BATCH):
        below = (
            select(message.c.id)
            .where(
                message.c.id.in_(message_ids[at : at + BATCH]),
                message.c.conversation_id == conversation_id,
            )
            .cte("below", recursive=True)
        )
        below = below.union(select(message.c.id).join(below, message.c.parent_id == below.c.id))
        connection.execute(delete(message).where(message.c.id.in_(select(below.c.id))))


def counts(connection: Connection, conversation_id: str) -> dict[str, int]:
    """What the conversation has, as values of its row."""
    counted = select(func.count(), func.coalesce(func.sum(message.c.num_tokens), 0)).where(
        message.c.conversation_id == conversation_id
    )
    num_messages, num_tokens = connection.execute(counted).one()
    return {"num_messages": num_messages, "num_tokens": int(num_tokens)}


def delete_conversation(connection: Connection, owner: str, conversation_id: str) -> Deleted:
    own_conversation(connection, owner, conversation_id)
    return _delete(connection, conversation.c.id == conversation_id)


def delete_owner(connection: Connection, owner: str) -> Deleted:
    """Everything of an owner."""
    return _delete(connection, conversation.c.owner == owner)


def delete_older(connection: Connection, before_s: float) -> Deleted:
    """Whatever nobody has used since, but for what is pinned."""
    return _delete(connection, (conversation.c.updated_s < before_s) & ~conversation.c.is_pinned)


def _move_head(connection: Connection, conversation_id: str, message_id: str | None) -> None:
    """Go on from this message, if the one to go on from is gone."""
    here = select(message.c.id).where(message.c.id == conversation.c.head_id)
    connection.execute(
        update(conversation)
        .where(conversation.c.id == conversation_id, ~here.exists())
        .values(head_id=message_id)
    )


def _counted_anew(connection: Connection, owner: str, conversation_id: str) -> ConversationRecord:
    connection.execute(
        update(conversation)
        .where(conversation.c.id == conversation_id)
        .values(
            version=conversation.c.version + 1,
            updated_s=time.time(),
            **counts(connection, conversation_id),
        )
    )
    return own_conversation(connection, owner, conversation_id)


def _delete(connection: Connection, which: ColumnElement[bool]) -> Deleted:
    """Delete conversations with all that belongs to them, a few at a time."""
    gone: list[str] = []
    num_messages = 0
    while True:
        ids = (
            connection.execute(select(conversation.c.id).where(which).limit(BATCH)).scalars().all()
        )
        if not ids:
            return Deleted(tuple(gone), num_messages)
        counted = select(func.count()).where(message.c.conversation_id.in_(ids))
        num_messages += connection.execute(counted).scalar_one()
        connection.execute(delete(conversation).where(conversation.c.id.in_(ids)))
        gone += ids
