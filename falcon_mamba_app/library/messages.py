"""Statements on the messages of a conversation: add, read a path, read the whole tree, copy."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, insert, literal, select

import falcon_mamba_app.library.conversations as conversations
import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.library.rows import (
    MESSAGE,
    message_of,
    own_conversation,
    own_message,
    storable,
    tag_of,
    values_of,
)
from falcon_mamba_app.library.tree import ConversationRecord, MessageRecord, Tree, new_id

table = schema.message
BATCH = 500


def append(
    connection: Connection,
    owner: str,
    record: MessageRecord,
    expected_version: int | None = None,
) -> MessageRecord:
    """Add a message below its parent; it becomes the head. Raises NotFound, Conflict."""
    conversations.grow(
        connection,
        owner,
        record.conversation_id,
        head_id=record.id,
        num_messages=1,
        num_tokens=record.num_tokens or 0,
        expected_version=expected_version,
    )
    if record.parent_id is not None:
        own_message(connection, owner, record.parent_id, record.conversation_id)
    record = replace(record, text=storable(record.text))
    insert_all(connection, owner, [record])
    return record


def insert_all(connection: Connection, owner: str, records: Iterable[MessageRecord]) -> None:
    """Parents first."""
    tag = tag_of(owner)
    rows = [{"owner_tag": tag, **values_of(record)} for record in records]
    for at in range(0, len(rows), BATCH):
        connection.execute(insert(table), rows[at : at + BATCH])


def single(connection: Connection, owner: str, message_id: str) -> tuple[MessageRecord, ...]:
    """One message, as `path` has it."""
    return with_events(connection, [own_message(connection, owner, message_id)])


def path(
    connection: Connection, owner: str, conversation_id: str, message_id: str | None
) -> tuple[MessageRecord, ...]:
    """From the first message to this one, or to the head."""
    conversation = own_conversation(connection, owner, conversation_id)
    last = conversation.head_id if message_id is None else message_id
    if last is None:
        return ()
    above = (
        select(table.c.id, table.c.parent_id, literal(0).label("depth"))
        .where(table.c.id == last, table.c.conversation_id == conversation_id)
        .cte("above", recursive=True)
    )
    above = above.union_all(
        select(table.c.id, table.c.parent_id, above.c.depth + 1).join(
            above, table.c.id == above.c.parent_id
        )
    )
    rows = connection.execute(
        select(*MESSAGE).join(above, table.c.id == above.c.id).order_by(above.c.depth.desc())
    ).all()
    if not rows:
        raise NotFound(f"there is no message {last!r}")
    return with_events(connection, map(message_of, rows))


def tree(connection: Connection, owner: str, conversation_id: str) -> Tree:
    conversation = own_conversation(connection, owner, conversation_id)
    rows = connection.execute(
        select(*MESSAGE).where(table.c.conversation_id == conversation_id).order_by(table.c.number)
    ).all()
    messages = with_events(connection, map(message_of, rows))
    return Tree(conversation, messages, conversations.branches(connection, conversation_id))


def with_events(
    connection: Connection, messages: Iterable[MessageRecord]
) -> tuple[MessageRecord, ...]:
    """The messages; those being written with the words that are written so far."""
    return tuple(
        replace(one, text=written_text(connection, one.generation))
        if one.status == "writing" and one.generation is not None
        else one
        for one in messages
    )


def written_text(connection: Connection, generation: str) -> str:
    """The words of a reply's events, in order."""
    event = schema.event
    parts: Any = connection.execute(
        select(event.c.text).where(event.c.generation == generation).order_by(event.c.seq)
    ).scalars()
    return "".join(parts)


def fork(
    connection: Connection, owner: str, conversation_id: str, message_id: str, title: str | None
) -> ConversationRecord:
    """A new conversation that begins with a copy of the path to the message."""
    source = own_conversation(connection, owner, conversation_id)
    copied = path(connection, owner, conversation_id, message_id)
    now_s = time.time()
    new = replace(
        source,
        title=source.title if title is None else title,
        head_id=message_id,
        is_pinned=False,
        is_archived=False,
        created_s=now_s,
        updated_s=now_s,
    )
    return adopt(connection, owner, Tree(new, copied))


def adopt_all(
    connection: Connection, owner: str, trees: Iterable[Tree]
) -> tuple[ConversationRecord, ...]:
    return tuple(adopt(connection, owner, tree) for tree in trees)


def adopt(connection: Connection, owner: str, tree: Tree) -> ConversationRecord:
    """Copy a tree as a new conversation of the owner, with ids of its own. Parents come first; a
    time that is not known is now.
    """
    tree = tree.renamed()
    now_s = time.time()
    new = replace(
        tree.conversation,
        id=new_id("conv"),
        owner=owner,
        created_s=tree.conversation.created_s or now_s,
        updated_s=tree.conversation.updated_s or now_s,
        version=0,
        num_messages=len(tree.messages),
        num_tokens=sum(one.num_tokens or 0 for one in tree.messages),
    )
    messages = [
        replace(
            one,
            conversation_id=new.id,
            created_s=one.created_s or now_s,
            text=storable(one.text),
            status="stopped" if one.status == "writing" else one.status,
            generation=None,
        )
        for one in tree.messages
    ]
    new = conversations.create(connection, new)
    insert_all(connection, owner, messages)
    for branch in tree.branches:
        conversations.name_branch(connection, owner, new.id, branch.name, branch.message_id)
    return new
