"""Which process is writing the next turn of a conversation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "claim",
        sa.Column(
            "conversation_id",
            sa.Text,
            sa.ForeignKey("conversation.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("token", sa.Text, nullable=False, unique=True),
        sa.Column("writer", sa.Text, nullable=False),
        sa.Column("taken_s", sa.Float(53), nullable=False),
    )
