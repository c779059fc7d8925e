"""A studio in front of a store, and people who use it."""

from __future__ import annotations

import shutil

import pytest
from sqlalchemy import make_url

from accord.feedback.store import Store
from feedback.databases import create_database
from feedback.studio.visitors import Place


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory):
    """A store without rows that nobody writes to."""
    address = create_database("sqlite", None, tmp_path_factory.mktemp("empty"))
    Store.open(address).close()
    return make_url(address).database


@pytest.fixture
def sqlite_store(empty_sqlite, tmp_path):
    shutil.copy(empty_sqlite, tmp_path / "studio.db")
    opened = Store.open(f"sqlite:///{tmp_path / 'studio.db'}")
    yield opened
    opened.close()


@pytest.fixture
def place(sqlite_store):
    """On SQLite, for what does not depend on the database."""
    return Place(sqlite_store)


@pytest.fixture
def both(store):
    """On SQLite and on PostgreSQL."""
    return Place(store)
