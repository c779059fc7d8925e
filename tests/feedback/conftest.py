"""Every test that takes `store` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from accord.feedback.store import Store
from feedback.databases import empty_database, postgres


@pytest.fixture(scope="session")
def postgres_server():
    with postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path):
    server = request.getfixturevalue("postgres_server") if request.param == "postgresql" else None
    with empty_database(request.param, server, tmp_path) as url:
        yield url


@pytest.fixture
def store(address):
    opened = Store.open(address)
    yield opened
    opened.close()
