"""Fixtures of databases: fresh, migrated, on SQLite or PostgreSQL.

``database_kind`` decides which. Everywhere it is SQLite; tests in ``tests/integration`` run once on
each (see the conftest there), and a test that needs one of them alone parametrises it:
``@pytest.mark.parametrize("database_kind", ["postgresql"])``.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from db import migrate
from db.session import create_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from tests.support.servers.postgres import PostgresServer


@pytest.fixture
def database_kind() -> str:
    """``sqlite`` or ``postgresql``."""
    return "sqlite"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy; never written to."""
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """Name of a migrated PostgreSQL database to copy; never written to."""
    name = postgres_server.create_database()
    migrate.upgrade(postgres_server.owner_url(name), runtime_url=postgres_server.url(name))
    return name


@pytest.fixture
def empty_database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """URL of a database without tables; on PostgreSQL as the role that may create them."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'epvs.sqlite'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    yield server.owner_url(name)
    server.drop_database(name)


@pytest.fixture
def database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """URL of a migrated database without rows; on SQLite ``epvs.sqlite`` in `tmp_path`.

    On PostgreSQL with the runtime role: what the node does, it must be able to do without DDL.
    """
    if database_kind == "sqlite":
        path = tmp_path / "epvs.sqlite"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database(request.getfixturevalue("postgres_template"))
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def owner_url(database_url: str) -> str:
    """`database_url` as the owner of the tables, who may change anything."""
    return database_url.replace("epvs_node@", "epvs_owner@")


@pytest.fixture
def owner_engine(owner_url: str) -> Iterator[Engine]:
    """Engine on `owner_url`."""
    engine = create_engine(owner_url)
    yield engine
    engine.dispose()


@pytest.fixture
def database_engine(database_url: str) -> Iterator[Engine]:
    """Engine on `database_url`."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()
