"""Puts the node of version 0.1.0 that `make_node` made where a test wants it."""

from __future__ import annotations

import shutil
import tarfile
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from db import migrate
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARCHIVE: Final = ROOT / "tests" / "support" / "upgrade" / "node-0.1.0.tar.gz"
LAST_MIGRATION: Final = "0006"
"""Of version 0.1.0."""


def load_node(folder: Path, owner_url: str) -> None:
    """Unpack data folder and database, whose rows then name the files in `folder`.

    Parameters
    ----------
    folder : Path
        Data folder; on SQLite the database is in it.
    owner_url : str
        Empty database. On PostgreSQL it gets the tables of 0.1.0, by its own migrations, and the
        rows of the SQLite file.
    """
    source = unpack_node(folder)
    if owner_url.startswith("sqlite"):
        shutil.move(source, folder / "epvs.sqlite")
    else:
        migrate.upgrade(owner_url, LAST_MIGRATION)
        insert_rows(source, owner_url)
    made_in = (folder / "data-dir").read_text()
    with _open(owner_url) as connection:
        for table in ("instances", "quarantined_instances", "report_objects"):
            moved = sa.text(f"UPDATE {table} SET path = replace(path, :old, :new)")
            connection.execute(moved, {"old": made_in, "new": str(folder)})


def unpack_node(folder: Path) -> Path:
    """Unpack data folder and database, and return the SQLite file."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "node.sqlite"


def insert_rows(source: Path, url: str) -> None:
    """Copy rows of a SQLite file into the empty tables of a database of an earlier schema.

    Columns that the earlier schema does not have are left out.
    """
    with _open(f"sqlite:///{source}") as old, _open(url) as new:
        _copy_rows(old, new)


def read_rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table, by the table's name, in order of the primary keys."""
    tables = sa.MetaData()
    with _open(url) as connection:
        tables.reflect(connection)
        return {
            table.name: [
                {name: _with_zone(value) for name, value in row.items()}
                for row in connection.execute(
                    sa.select(table).order_by(*table.primary_key.columns)
                ).mappings()
            ]
            for table in tables.sorted_tables
            if table.name != "alembic_version"
        }


@contextmanager
def _open(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def _copy_rows(old: sa.Connection, new: sa.Connection) -> None:
    """Copy every row; SQLite stores times without a zone, they are UTC."""
    source, target = sa.MetaData(), sa.MetaData()
    source.reflect(old)
    target.reflect(new)
    for table in target.sorted_tables:
        is_known = table.name in source.tables and table.name != "alembic_version"
        n_rows = new.scalar(sa.select(sa.func.count()).select_from(table))
        if not is_known or (n_rows and table.name != "audit_head"):
            continue
        rows = [
            {name: _with_zone(value) for name, value in row.items() if name in table.columns}
            for row in old.execute(sa.select(source.tables[table.name])).mappings()
            # Migration 0005 adds the other reasons.
            if "reason" in table.columns or row.get("reason", "conflict") == "conflict"
        ]
        if table.name == "audit_head":  # the migrations have made its only row
            new.execute(sa.update(table).where(table.c.seq == 0).values(**rows[0]))
        elif rows:
            new.execute(sa.insert(table), rows)
        if rows and new.dialect.name == "postgresql":
            _move_sequence(new, table, rows)


def _move_sequence(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Let numbers of new rows begin after those that were inserted."""
    (key, *others) = table.primary_key.columns
    if others or not isinstance(key.type, sa.Integer):
        return
    name = sa.func.pg_get_serial_sequence(table.name, key.name)
    if connection.scalar(sa.select(name)) is not None:
        connection.execute(sa.select(sa.func.setval(name, max(row[key.name] for row in rows))))


def _with_zone(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
