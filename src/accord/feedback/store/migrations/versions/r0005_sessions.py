"""From which login or token a judgment came, so that a burst of them from one can be told; of earlier ones nobody knows.

Logins are deleted when they have ended, so this is no foreign key: what stays is a name that two judgments share.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; rows that are there stay as they are, as triggers demand."""
    op.execute("ALTER TABLE judgment ADD COLUMN session_id VARCHAR(36)")
