"""One turn at a time in a conversation, whichever process writes it: a row says who does.

A claim ends when it is let go, and with its process (`writers`). An hour is its longest life, for a
process that lives on without its turn.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.errors import Conflict, LibraryUnavailable, NotFound
from falcon_mamba_app.library.database import Database
from falcon_mamba_app.library.writers import Writer

logger = logging.getLogger(__name__)

MAX_TURN_S = 3_600.0

table, conversation = schema.claim, schema.conversation


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write the next turn of one conversation."""

    conversation_id: str
    token: str


class Claims:
    """The claims of one library."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._left: list[Claim] = []  # claims whose end the database does not know yet

    async def take(self, owner: str, conversation_id: str) -> Claim:
        """Raises Conflict while somebody else writes a turn there, and NotFound."""
        while self._left:
            await self._database.write(_delete, self._left[-1])
            self._left.pop()
        return await self._database.write(_take, owner, conversation_id, self._database.this)

    async def let_go(self, claim: Claim) -> None:
        """Let others write. If the database fails, it is told before the next `take`."""
        try:
            await self._database.write(_delete, claim)
        except LibraryUnavailable as error:
            logger.warning("a conversation stays claimed for now: %s", error)
            self._left.append(claim)


def _take(connection: Connection, owner: str, conversation_id: str, this: Writer) -> Claim:
    own = select(conversation.c.id).where(
        conversation.c.id == conversation_id, conversation.c.owner == owner
    )
    # Locked until the commit, so that of two at once the second sees the first one's row.
    if connection.execute(own.with_for_update()).first() is None:
        raise NotFound(f"there is no conversation {conversation_id!r}")
    now_s = time.time()
    row = connection.execute(
        select(table).where(table.c.conversation_id == conversation_id)
    ).first()
    if row is not None:
        is_old = now_s - row.taken_s > MAX_TURN_S
        if not is_old and not this.is_gone(connection, row.writer):
            raise Conflict("another turn of this conversation is being written")
        connection.execute(delete(table).where(table.c.conversation_id == conversation_id))
    claim = Claim(conversation_id, secrets.token_hex(16))
    connection.execute(
        insert(table).values(
            conversation_id=conversation_id, token=claim.token, writer=this.name, taken_s=now_s
        )
    )
    return claim


def _delete(connection: Connection, claim: Claim) -> None:
    connection.execute(delete(table).where(table.c.token == claim.token))
