"""After a deletion in SQLite: nothing of the words stays in the file, nor beside it.

Deleted rows are overwritten by SQLite (`secure_delete`). The index of words keeps what was deleted
until its parts are merged, and the write-ahead log keeps pages as they were until it is emptied.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

INDEXES = ("message_words", "conversation_words")
# Pages of the index merged in one transaction; others write between two. 1,000 take about 50 ms.
PAGES_AT_ONCE = 1_000


def merge(connection: Connection, index: str, *, is_first: bool) -> bool:
    """Merge a part of an index; whether there is more to do."""
    pages = -PAGES_AT_ONCE if is_first else PAGES_AT_ONCE
    before = _num_changes(connection)
    connection.execute(
        text(f"INSERT INTO {index}({index}, rank) VALUES ('merge', :pages)"), {"pages": pages}
    )
    return _num_changes(connection) - before >= 2


def empty_log(connection: Connection) -> None:
    """Outside of a transaction. While somebody reads, the log is emptied a little later."""
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _num_changes(connection: Connection) -> int:
    return int(connection.execute(text("SELECT total_changes()")).scalar_one())
