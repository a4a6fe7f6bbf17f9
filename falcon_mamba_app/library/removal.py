"""Statements that take single messages out of a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, select, update

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.library.rows import own_conversation, own_message

message, conversation = schema.message, schema.conversation


def remove(
    connection: Connection, owner: str, conversation_id: str, message_ids: Sequence[str]
) -> int:
    """Delete these messages; what followed one now follows its parent. Returns how many are left.

    Raises NotFound for a message that is not in the owner's conversation.
    """
    for message_id in message_ids:
        found = own_message(connection, owner, message_id, conversation_id)
        connection.execute(
            update(message)
            .where(message.c.parent_id == message_id)
            .values(parent_id=found.parent_id)
        )
        connection.execute(
            update(conversation)
            .where(conversation.c.id == conversation_id, conversation.c.head_id == message_id)
            .values(head_id=found.parent_id)
        )
        connection.execute(delete(message).where(message.c.id == message_id))
        connection.execute(
            update(conversation)
            .where(conversation.c.id == conversation_id)
            .values(
                num_messages=conversation.c.num_messages - 1,
                num_tokens=conversation.c.num_tokens - (found.num_tokens or 0),
                version=conversation.c.version + 1,
            )
        )
    own_conversation(connection, owner, conversation_id)
    left = select(func.count()).where(message.c.conversation_id == conversation_id)
    return int(connection.execute(left).scalar_one())
