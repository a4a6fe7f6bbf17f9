"""A conversation brought to what a page holds of it, in one transaction.

Who holds a conversation in memory writes the differences; after trouble the next write brings all
that is missing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, delete, insert, select, update

import falcon_mamba_app.library.conversations as conversations
import falcon_mamba_app.library.messages as messages
import falcon_mamba_app.library.removal as removal
import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.library.rows import own_conversation, own_message, storable, values_of
from falcon_mamba_app.library.tree import Changes, ConversationRecord, MessageRecord

table, conversation = schema.message, schema.conversation
branch, event = schema.branch, schema.event
BATCH = 500


def apply(connection: Connection, owner: str, changes: Changes) -> ConversationRecord:
    """The conversation afterwards; it is made if there is none. Raises Conflict where the id is
    another owner's.
    """
    now_s = time.time()
    try:
        before = own_conversation(connection, owner, changes.conversation_id)
    except NotFound:
        new = ConversationRecord(
            id=changes.conversation_id,
            owner=owner,
            title=changes.title,
            system_prompt=changes.system_prompt,
            created_s=now_s,
            updated_s=now_s,
        )
        before = conversations.create(connection, new)
    removal.take_out(connection, before.id, changes.removed)
    _write(connection, owner, [replace(one, text=storable(one.text)) for one in changes.added])
    _name(connection, before.id, changes.branches)
    connection.execute(
        update(conversation)
        .where(conversation.c.id == before.id)
        .values(
            head_id=changes.head_id,
            version=conversation.c.version + 1,
            updated_s=now_s if changes.added or changes.removed else before.updated_s,
            **removal.counts(connection, before.id),
        )
    )
    return own_conversation(connection, owner, before.id)


def _write(connection: Connection, owner: str, records: Sequence[MessageRecord]) -> None:
    """Add what is new, and replace what is there: a reply, say, whose end was not written."""
    there: set[str] = set()
    for at in range(0, len(records), BATCH):
        ids = [one.id for one in records[at : at + BATCH]]
        there |= set(connection.execute(select(table.c.id).where(table.c.id.in_(ids))).scalars())
    messages.insert_all(connection, owner, [one for one in records if one.id not in there])
    for one in records:
        if one.id in there:
            here = own_message(connection, owner, one.id, one.conversation_id)
            if here.generation is not None:
                connection.execute(delete(event).where(event.c.generation == here.generation))
            connection.execute(update(table).where(table.c.id == one.id).values(**values_of(one)))


def _name(connection: Connection, conversation_id: str, names: Mapping[str, str]) -> None:
    """Exactly these names, each of a message of the conversation."""
    found = connection.execute(
        select(branch.c.name, branch.c.message_id).where(
            branch.c.conversation_id == conversation_id
        )
    )
    if {row.name: row.message_id for row in found} == dict(names):
        return
    connection.execute(delete(branch).where(branch.c.conversation_id == conversation_id))
    rows = [
        {"conversation_id": conversation_id, "name": storable(name), "message_id": message_id}
        for name, message_id in names.items()
    ]
    if rows:
        connection.execute(insert(branch), rows)
