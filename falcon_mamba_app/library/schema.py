"""The tables. `migrations/` makes them; a test compares both.

Rows are numbered for the search, and named by ids for callers. Deleting a conversation's row takes
all of its rows along. `owner_tag` stands beside each message, so that a search of the words of one
owner reads nothing of another's.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

HEAD = "0003"  # the schema's version that this code reads and writes
# SQLite counts by itself only in a column of exactly this type.
Number = BigInteger().with_variant(Integer(), "sqlite")


class Json(TypeDecorator[Any]):
    """A value as JSON text, in every database alike."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


metadata = MetaData()

conversation = Table(
    "conversation",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("owner_tag", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("system_prompt", Text, nullable=False),
    Column("settings", Json, nullable=False),
    Column("extra", Json, nullable=False),
    Column("folder", Text, nullable=False),
    Column("is_pinned", Boolean, nullable=False),
    Column("is_archived", Boolean, nullable=False),
    Column("created_s", Float(53), nullable=False),
    Column("updated_s", Float(53), nullable=False),
    Column("head_id", Text),
    Column("version", Integer, nullable=False),
    Column("num_messages", Integer, nullable=False),
    Column("num_tokens", BigInteger, nullable=False),
    Index("conversation_by_date", "owner", "is_archived", "is_pinned", "updated_s", "number"),
    Index("conversation_by_folder", "owner", "folder", "is_archived", "is_pinned", "updated_s"),
    Index("conversation_by_age", "updated_s"),
    sqlite_autoincrement=True,
)

message = Table(
    "message",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column(
        "conversation_id", Text, ForeignKey("conversation.id", ondelete="CASCADE"), nullable=False
    ),
    # Nothing cascades here: SQLite ends a cascade after 1,000 levels.
    Column("parent_id", Text, ForeignKey("message.id")),
    Column("owner_tag", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("created_s", Float(53), nullable=False),
    Column("status", Text, nullable=False),
    Column("token_ids", LargeBinary),
    Column("num_tokens", Integer),
    Column("context_tokens", Integer),
    Column("model", Text),
    Column("sampling", Json),
    Column("finish_reason", Text),
    Column("ttft_s", Float(53)),
    Column("duration_s", Float(53)),
    Column("tokens_per_s", Float(53)),
    Column("extra", Json, nullable=False),
    Column("generation", Text, unique=True),
    Index("message_by_conversation", "conversation_id", "number"),
    Index("message_by_parent", "parent_id"),
    sqlite_autoincrement=True,
)

branch = Table(
    "branch",
    metadata,
    Column(
        "conversation_id", Text, ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("name", Text, primary_key=True),
    Column("message_id", Text, ForeignKey("message.id", ondelete="CASCADE"), nullable=False),
    Index("branch_by_message", "message_id"),
)

# The words of a reply that is being written: they replace nothing until it ends.
event = Table(
    "event",
    metadata,
    Column(
        "generation", Text, ForeignKey("message.generation", ondelete="CASCADE"), primary_key=True
    ),
    Column("seq", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    Column("created_s", Float(53), nullable=False),
)

# The process that writes the next turn of a conversation.
claim = Table(
    "claim",
    metadata,
    Column(
        "conversation_id", Text, ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("token", Text, nullable=False, unique=True),
    Column("writer", Text, nullable=False),
    Column("taken_s", Float(53), nullable=False),
)

# What visitors have spent at each copy of the server, under hashes; `library/spending.py`.
spent = Table(
    "spent",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("what", Text, primary_key=True),
    Column("whose", Text, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("round", BigInteger, nullable=False),
)
