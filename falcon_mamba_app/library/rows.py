"""Between rows and values: what both kinds of statements share."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Row, select

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.library.tree import (
    BranchRecord,
    ConversationRecord,
    MessageRecord,
)

CONVERSATION = [schema.conversation.c[field.name] for field in fields(ConversationRecord)]
MESSAGE = [schema.message.c[field.name] for field in fields(MessageRecord)]
BRANCH = [schema.branch.c[field.name] for field in fields(BranchRecord)]


def tag_of(owner: str) -> str:
    """One word for the owner in the index of words."""
    return "o" + hashlib.blake2b(owner.encode("utf-8", "replace"), digest_size=12).hexdigest()


def storable(text: str) -> str:
    """The text, with a mark in place of what no database takes: NUL, and halves of a character."""
    return (
        text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    )


def conversation_of(row: Row[Any]) -> ConversationRecord:
    return ConversationRecord(**{c.name: row._mapping[c] for c in CONVERSATION})


def message_of(row: Row[Any]) -> MessageRecord:
    return MessageRecord(**{c.name: row._mapping[c] for c in MESSAGE})


def values_of(record: Any) -> dict[str, Any]:
    """A record's fields as a row's values."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def own_conversation(
    connection: Connection, owner: str, conversation_id: str
) -> ConversationRecord:
    """Raises NotFound for another owner's as for one that never was."""
    table = schema.conversation
    row = connection.execute(
        select(*CONVERSATION).where(table.c.id == conversation_id, table.c.owner == owner)
    ).first()
    if row is None:
        raise NotFound(f"there is no conversation {conversation_id!r}")
    return conversation_of(row)


def own_message(
    connection: Connection, owner: str, message_id: str, conversation_id: str | None = None
) -> MessageRecord:
    """Raises NotFound; also for a message of another conversation, if one is named."""
    table, above = schema.message, schema.conversation
    statement = (
        select(*MESSAGE)
        .join(above, above.c.id == table.c.conversation_id)
        .where(table.c.id == message_id, above.c.owner == owner)
    )
    if conversation_id is not None:
        statement = statement.where(table.c.conversation_id == conversation_id)
    row = connection.execute(statement).first()
    if row is None:
        raise NotFound(f"there is no message {message_id!r}")
    return message_of(row)
