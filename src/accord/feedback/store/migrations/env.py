"""What Alembic runs to migrate: the connection comes from `database`, which holds the lock."""

from __future__ import annotations

from alembic import context

from accord.feedback.store.tables import Base


def run() -> None:
    """Run the revisions that are asked for inside the caller's transaction."""
    context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
    context.run_migrations()


if __name__ == "env_py":  # the name Alembic loads this file under; a plain import does nothing
    run()
