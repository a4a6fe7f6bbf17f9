"""Conversations, messages, branches, events of replies; and the index of their words."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# What stands later in a message is kept, but not found: PostgreSQL's index takes at most 1 MB.
MAX_INDEXED_CHARS = 100_000


def upgrade() -> None:
    op.create_table(
        "conversation",
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("owner_tag", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("system_prompt", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("extra", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("is_pinned", sa.Boolean, nullable=False),
        sa.Column("is_archived", sa.Boolean, nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("updated_s", sa.Float(53), nullable=False),
        sa.Column("head_id", sa.Text),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("num_messages", sa.Integer, nullable=False),
        sa.Column("num_tokens", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    by_date = ["owner", "is_archived", "is_pinned", "updated_s", "number"]
    op.create_index("conversation_by_date", "conversation", by_date)
    by_folder = ["owner", "folder", "is_archived", "is_pinned", "updated_s"]
    op.create_index("conversation_by_folder", "conversation", by_folder)
    op.create_index("conversation_by_age", "conversation", ["updated_s"])
    op.create_table(
        "message",
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        _of_conversation(),
        sa.Column("parent_id", sa.Text, sa.ForeignKey("message.id")),
        sa.Column("owner_tag", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("token_ids", sa.LargeBinary),
        sa.Column("num_tokens", sa.Integer),
        sa.Column("context_tokens", sa.Integer),
        sa.Column("model", sa.Text),
        sa.Column("sampling", sa.Text),
        sa.Column("finish_reason", sa.Text),
        sa.Column("ttft_s", sa.Float(53)),
        sa.Column("duration_s", sa.Float(53)),
        sa.Column("tokens_per_s", sa.Float(53)),
        sa.Column("extra", sa.Text, nullable=False),
        sa.Column("generation", sa.Text, unique=True),
        sqlite_autoincrement=True,
    )
    op.create_index("message_by_conversation", "message", ["conversation_id", "number"])
    op.create_index("message_by_parent", "message", ["parent_id"])
    op.create_table(
        "branch",
        _of_conversation(primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column(
            "message_id", sa.Text, sa.ForeignKey("message.id", ondelete="CASCADE"), nullable=False
        ),
    )
    op.create_index("branch_by_message", "branch", ["message_id"])
    op.create_table(
        "event",
        sa.Column(
            "generation",
            sa.Text,
            sa.ForeignKey("message.generation", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        _index_words_in_postgres()
    else:
        _index_words_in_sqlite()


def _of_conversation(*, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(
        "conversation_id",
        sa.Text,
        sa.ForeignKey("conversation.id", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
    )


def _index_words_in_sqlite() -> None:
    """FTS5 over the tables' own texts; the owner's tag is a word like others, so that the words of
    one owner are found without reading another's.
    """
    for table, words in (("message", "text"), ("conversation", "title")):
        index, columns = f"{table}_words", f"owner_tag, {words}"
        op.execute(
            f"CREATE VIRTUAL TABLE {index} USING fts5({columns}, content='{table}',"
            " content_rowid='number', prefix='2 3', tokenize='unicode61 remove_diacritics 2')"
        )
        put = (
            f"INSERT INTO {index}(rowid, {columns}) VALUES (new.number, new.owner_tag, new.{words})"
        )
        take = (
            f"INSERT INTO {index}({index}, rowid, {columns})"
            f" VALUES ('delete', old.number, old.owner_tag, old.{words})"
        )
        op.execute(f"CREATE TRIGGER {index}_put AFTER INSERT ON {table} BEGIN {put}; END")
        op.execute(f"CREATE TRIGGER {index}_take AFTER DELETE ON {table} BEGIN {take}; END")
        op.execute(
            f"CREATE TRIGGER {index}_change AFTER UPDATE OF {words} ON {table}"
            f" BEGIN {take}; {put}; END"
        )


def _index_words_in_postgres() -> None:
    for table, words in (("message", "text"), ("conversation", "title")):
        op.execute(
            f"CREATE INDEX {table}_words ON {table} USING gin"
            f" (to_tsvector('simple', left({words}, {MAX_INDEXED_CHARS})))"
        )
