"""Two candidates for a turn of a conversation wait here until one of them is picked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "pending_reply",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("parent_id", sa.String(length=36), nullable=False),
        sa.Column("side", sa.Integer(), nullable=False),
        sa.Column("body_id", sa.String(length=36), nullable=False),
        sa.Column("sampling", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("latency_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("side IN (0, 1)", name=op.f("ck_pending_reply_side")),
        sa.ForeignKeyConstraint(["parent_id"], ["turn.id"], name=op.f("fk_pending_reply_parent_id")),
        sa.ForeignKeyConstraint(["body_id"], ["body.id"], name=op.f("fk_pending_reply_body_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pending_reply")),
        sa.UniqueConstraint("parent_id", "side", name=op.f("uq_pending_reply_parent_id_side")),
    )
