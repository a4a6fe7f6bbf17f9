"""What each copy of a server tells the others: amounts under hashes, which copies add up and nobody
else reads. Rows go with their writer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, delete, insert, or_, select

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.library.database import Database
from falcon_mamba_app.library.writers import Writer

table = schema.spent

Row = tuple[str, str, int]  # what, whose, how much


@dataclass(frozen=True, slots=True)
class Told:
    """What another copy has told, in its own counting of rounds."""

    writer: str
    what: str
    whose: str
    amount: int
    round: int


class Spending:
    """The spending told through one library."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def exchange(
        self, round: int, news: Sequence[Row], old: Sequence[Row], seen: Mapping[str, int]
    ) -> list[Told]:
        """Write what is new here and delete what is old, in this copy's `round`; what others have
        told after the rounds that were `seen` of them. Raises LibraryUnavailable.
        """
        if news or old:
            await self._database.write(_tell, self._database.this, round, news, old)
        return await self._database.read(_heard, self._database.this.name, seen)

    async def sweep(self) -> list[str]:
        """Delete the rows of copies that have ended; their names. Raises LibraryUnavailable."""
        return await self._database.write(_sweep, self._database.this)

    async def leave(self) -> None:
        """Delete this copy's rows. Raises LibraryUnavailable."""
        await self._database.write(_leave, self._database.this.name)


def _tell(
    connection: Connection, this: Writer, round: int, news: Sequence[Row], old: Sequence[Row]
) -> None:
    places = [{"its": what, "who": whose} for what, whose, _ in (*news, *old)]
    connection.execute(
        delete(table).where(
            table.c.writer == this.name,
            table.c.what == bindparam("its"),
            table.c.whose == bindparam("who"),
        ),
        places,
    )
    rows = [
        {"writer": this.name, "what": what, "whose": whose, "amount": amount, "round": round}
        for what, whose, amount in news
    ]
    if rows:
        connection.execute(insert(table), rows)


def _heard(connection: Connection, this: str, seen: Mapping[str, int]) -> list[Told]:
    later = [and_(table.c.writer == name, table.c.round > last) for name, last in seen.items()]
    unseen = table.c.writer.not_in([this, *seen])
    asked = select(table.c.writer, table.c.what, table.c.whose, table.c.amount, table.c.round)
    return [Told(*row) for row in connection.execute(asked.where(or_(unseen, *later)))]


def _sweep(connection: Connection, this: Writer) -> list[str]:
    writers = connection.execute(select(table.c.writer).distinct()).scalars().all()
    gone = [name for name in writers if this.is_gone(connection, name)]
    for name in gone:
        _leave(connection, name)
    return gone


def _leave(connection: Connection, writer: str) -> None:
    connection.execute(delete(table).where(table.c.writer == writer))
