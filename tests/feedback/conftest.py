"""Every test that takes `store` runs on SQLite and on PostgreSQL. The schema is made once per session and copied."""

from __future__ import annotations

import shutil

import pytest
from sqlalchemy import make_url

from accord.feedback.store import Store
from feedback.databases import create_database, empty_database, postgres


@pytest.fixture(scope="session")
def postgres_server():
    with postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request):
    return request.param


@pytest.fixture
def server(kind, request):
    return request.getfixturevalue("postgres_server") if kind == "postgresql" else None


@pytest.fixture
def address(kind, server, tmp_path):
    """A database without tables."""
    with empty_database(kind, server, tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def templates(tmp_path_factory):
    """kind -> address of a database of the newest schema that nobody writes to, filled on first use."""
    return {}, tmp_path_factory.mktemp("templates")


@pytest.fixture
def store_address(kind, server, tmp_path, templates):
    """A store without rows."""
    made, folder = templates
    if kind not in made:
        made[kind] = create_database(kind, server, folder)
        Store.open(made[kind]).close()
    name = make_url(made[kind]).database
    if kind == "sqlite":
        shutil.copy(name, tmp_path / "store.db")
        yield f"sqlite:///{tmp_path / 'store.db'}"
    else:
        with empty_database(kind, server, tmp_path, template=name) as url:
            yield url


@pytest.fixture
def store(store_address):
    opened = Store.open(store_address)
    yield opened
    opened.close()
