"""Who wrote a prompt or a response, and how an item came to its place in the queue.

Nobody judges what they wrote, and what a person wrote can be erased; items chosen by active selection are told from
those drawn at random. All items of earlier stores were drawn at random.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; this form of ALTER TABLE is the same on SQLite and PostgreSQL."""
    for table in ("prompt", "response"):
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN author_id VARCHAR(36) "
            f'CONSTRAINT fk_{table}_author_id REFERENCES "user" (id)'
        )
    op.execute(
        "ALTER TABLE item ADD COLUMN arm TEXT DEFAULT 'random' NOT NULL "
        "CONSTRAINT ck_item_arm CHECK (\"arm\" IN ('random', 'selected'))"
    )
