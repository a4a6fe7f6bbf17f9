"""Statements on a reply that is being written: an event for each piece, then its end.

The events are committed one by one, so a process that ends in mid-reply loses at most the piece it
was about to write. `generation` names the writing: only who began a reply goes on with it.
"""

from __future__ import annotations

import time
from dataclasses import fields, replace
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

import falcon_mamba_app.library.messages as messages
import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.errors import Conflict
from falcon_mamba_app.library.rows import MESSAGE, message_of, storable
from falcon_mamba_app.library.tree import MessageRecord, ReplyEnd
from falcon_mamba_app.library.writers import Writer, new_generation, writer_of

table, event = schema.message, schema.event


def begin(
    connection: Connection,
    owner: str,
    record: MessageRecord,
    writer: Writer,
    expected_version: int | None,
) -> MessageRecord:
    """An empty reply below its parent, to be extended under its `generation`."""
    generation = new_generation(writer)
    record = replace(record, status="writing", generation=generation, text="")
    return messages.append(connection, owner, record, expected_version)


def extend(connection: Connection, owner: str, generation: str, seq: int, text: str) -> None:
    """Add piece number `seq`. Raises Conflict where the reply is over, or has that piece."""
    _written(connection, owner, generation)
    is_there = select(event.c.seq).where(event.c.generation == generation, event.c.seq == seq)
    if connection.execute(is_there).first() is not None:
        raise Conflict(f"piece {seq} of this reply is written already")
    connection.execute(
        insert(event).values(
            generation=generation, seq=seq, text=storable(text), created_s=time.time()
        )
    )


def finish(connection: Connection, owner: str, generation: str, end: ReplyEnd) -> MessageRecord:
    """The reply as it stays. Its events go; the conversation counts its tokens."""
    reply = _written(connection, owner, generation)
    given = {field.name: getattr(end, field.name) for field in fields(ReplyEnd)}
    values = {name: value for name, value in given.items() if value is not None}
    text = messages.written_text(connection, generation) if end.text is None else end.text
    row = _close(connection, generation, values | {"text": storable(text)})
    conversation = schema.conversation
    connection.execute(
        update(conversation)
        .where(conversation.c.id == reply.conversation_id)
        .values(
            num_tokens=conversation.c.num_tokens + (end.num_tokens or 0),
            updated_s=time.time(),
            version=conversation.c.version + 1,
        )
    )
    return message_of(row)


def close_broken_off(connection: Connection, this: Writer) -> int:
    """End the replies whose writers have gone, with the words that they had. Returns how many."""
    being_written = select(table.c.generation).where(table.c.generation > "")
    generations = connection.execute(being_written).scalars().all()
    gone = {writer: this.is_gone(connection, writer) for writer in set(map(writer_of, generations))}
    broken_off = [generation for generation in generations if gone[writer_of(generation)]]
    for generation in broken_off:
        text = messages.written_text(connection, generation)
        _close(connection, generation, {"text": text, "status": "interrupted"})
    return len(broken_off)


def _written(connection: Connection, owner: str, generation: str) -> MessageRecord:
    """The reply being written under this name. Raises Conflict where there is none."""
    above = schema.conversation
    row = connection.execute(
        select(*MESSAGE)
        .join(above, above.c.id == table.c.conversation_id)
        .where(table.c.generation == generation, above.c.owner == owner)
    ).first()
    if row is None:
        raise Conflict("this reply is over, or its conversation has been deleted")
    return message_of(row)


def _close(connection: Connection, generation: str, values: dict[str, Any]) -> Any:
    connection.execute(delete(event).where(event.c.generation == generation))
    return connection.execute(
        update(table)
        .where(table.c.generation == generation)
        .values(generation=None, **values)
        .returning(*MESSAGE)
    ).one()
