"""Real databases for tests: SQLite files, and Debian's PostgreSQL on loopback in a temporary folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "120"}


def binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a server that lives as long as the block; skips where there is none to start."""
    folder = binaries()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    if as_postgres() and not shutil.which("runuser"):
        pytest.skip("PostgreSQL refuses root, and there is no runuser to become someone else")
    data = Path(tempfile.mkdtemp(prefix="accord-postgres-", dir="/tmp"))
    if as_postgres():
        shutil.chown(data, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    initdb = [
        *as_postgres(),
        str(folder / "initdb"),
        "-D",
        str(data / "d"),
        "-U",
        "accord",
        "-A",
        "trust",
        "-E",
        "UTF8",
    ]
    subprocess.run([*initdb, "--locale=C", "-N"], check=True, capture_output=True, cwd="/")
    settings = [part for name, value in FAST.items() for part in ("-c", f"{name}={value}")]
    options = ["-D", str(data / "d"), "-h", "127.0.0.1", "-p", str(port), "-k", "", *settings]
    with (data / "log").open("wb") as log:
        server = subprocess.Popen([*as_postgres(), str(folder / "postgres"), *options], stderr=log, stdout=log, cwd="/")
        try:
            address = f"postgresql+psycopg://accord@127.0.0.1:{port}/"
            wait_for(f"{address}postgres", data / "log")
            yield address
        finally:
            stop(data / "d" / "postmaster.pid", server)
            shutil.rmtree(data, ignore_errors=True)


def stop(pid_file: Path, server: subprocess.Popen[bytes]) -> None:
    """By its process id: runuser is the parent, and does not pass every signal on."""
    if pid_file.exists():
        os.kill(int(pid_file.read_text().splitlines()[0]), 3)  # SIGQUIT: immediate shutdown
    else:
        server.kill()
    server.wait(timeout=30)


def wait_for(address: str, log: Path) -> None:
    engine = create_engine(address, poolclass=NullPool)
    for _ in range(200):
        try:
            with engine.connect():
                return
        except OperationalError:
            time.sleep(0.05)
    pytest.fail(f"PostgreSQL did not start: {log.read_text()}")


def create_database(kind: str, server: str | None, folder: Path, template: str = "template1") -> str:
    """The address of a database without tables, or on PostgreSQL with those of a template."""
    name = f"t{uuid.uuid4().hex}"
    if kind == "sqlite":
        return f"sqlite:///{folder / name}.db"
    administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    return f"{server}{name}"


@contextmanager
def empty_database(kind: str, server: str | None, folder: Path, template: str = "template1") -> Iterator[str]:
    """The same for the length of a block."""
    address = create_database(kind, server, folder, template)
    try:
        yield address
    finally:
        if kind == "postgresql":
            administer(server, f"DROP DATABASE {make_url(address).database} WITH (FORCE)")


def administer(server: str | None, statement: str) -> None:
    engine = create_engine(f"{server}postgres", isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(statement))
