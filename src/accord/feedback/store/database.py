"""A store: a database of the newest schema, and transactions that are tried again when two of them collide.

    store = Store.open("sqlite:///feedback.db")            # or postgresql+psycopg://USER@HOST/NAME
    task = store.run(next_task, campaign_id=campaign, annotator_id=me, now=now_ms())

Every query is a function whose first argument is a session; `run` calls it in one transaction, `read` in one that
does not wait for writers.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

__all__ = ["Store", "newest_revision", "revision_of", "upgrade"]

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 6  # the first one and five more
_LOCK = 0x6163636F7264  # "accord": the key of PostgreSQL's advisory lock on migrations
_BUSY_SECONDS = 30  # a writer waits this long for another one on SQLite


class Store:
    """A database of feedback. Make it with `Store.open`; `close` lets its connections go."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reader = engine.execution_options(read_only=True)
        # SQLite has one writer, and who waits for it sleeps and looks again, up to 0.1 s at a time: here threads of one
        # process queue up instead, and the next one goes on at once.
        self._writing: AbstractContextManager[Any] = threading.Lock() if _is_sqlite(engine) else nullcontext()

    @classmethod
    def open(cls, url: str | URL, **engine_options: Any) -> Store:
        """Open a store, making or upgrading its tables.

        Args:
            url: of SQLAlchemy, e.g. "sqlite:///feedback.db" or "postgresql+psycopg://user@host/name".
            engine_options: for `sqlalchemy.create_engine`, e.g. `pool_size`.

        Raises:
            ValueError: another kind of database, one in memory, or one of a newer schema than this code knows.
        """
        url = make_url(url)
        backend = url.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise ValueError(f"found a {backend} database; expected sqlite or postgresql; change the address")
        if backend == "sqlite" and url.database in (None, "", ":memory:"):
            raise ValueError(
                "found an SQLite database in memory; expected a file, as each connection would see a database of its "
                "own; write sqlite:///FILE"
            )
        if backend == "sqlite":
            engine_options = {"connect_args": {"timeout": _BUSY_SECONDS}, **engine_options}
        engine = create_engine(url, **engine_options)
        if backend == "sqlite":
            _prepare_sqlite(engine)
        event.listen(engine, "before_cursor_execute", _without_null, retval=True)
        try:
            with engine.begin() as connection:
                upgrade(connection)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    def run(self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(session, ...)` in a transaction of its own.

        A unique violation (two tabs at once), a deadlock or a database that was busy for too long is tried again with
        jitter, five times; then it is raised. What the function returns may be read after the transaction.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._writing, Session(self.engine, expire_on_commit=False) as session, session.begin():
                    return function(session, *args, **kwargs)
            except (IntegrityError, OperationalError) as error:
                if attempt == ATTEMPTS or not _may_pass(error):
                    raise
                time.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise AssertionError("the last attempt returns or raises")

    def read(self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that changes nothing, beside writers and without waiting for them."""
        with Session(self._reader, expire_on_commit=False) as session:
            return function(session, *args, **kwargs)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _is_sqlite(engine: Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _may_pass(error: IntegrityError | OperationalError) -> bool:
    """Whether another attempt can succeed: a collision with another transaction, not a broken rule or a lost file."""
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None) or ""
    return code in ("23505", "40P01", "40001", "55P03") or code.startswith(("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_BUSY"))


def _prepare_sqlite(engine: Engine) -> None:
    """WAL, foreign keys, and transactions that take the write lock at once, so that none fails half-way for it."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _without_null(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    """PostgreSQL keeps no U+0000 in a text, and SQLite does: both keep U+FFFD instead, as browsers show it."""
    return statement, _shown(parameters)


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {name: _shown(one) for name, one in value.items()}
    return type(value)(map(_shown, value)) if isinstance(value, (list, tuple)) else value


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def newest_revision() -> str:
    """The revision of the schema that this code needs."""
    newest = ScriptDirectory(str(Path(__file__).parent / "migrations")).get_current_head()
    assert newest is not None
    return newest


def revision_of(connection: Connection) -> str | None:
    """The revision a database is at; None: it has no tables of ours."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring a database to a revision inside the caller's transaction; a second process waits for the first one.

    Raises:
        ValueError: the database is newer than this code.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    found, newest = revision_of(connection), newest_revision()
    if found is not None and found > newest:
        raise ValueError(
            f"the store is at schema {found}; this version of accord knows {newest} and older ones; install the "
            "version that wrote it, or a newer one"
        )
    if found != newest:
        command.upgrade(_config(connection), revision)
