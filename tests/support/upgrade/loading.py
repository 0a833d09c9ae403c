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
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    source = folder / "node.sqlite"
    if owner_url.startswith("sqlite"):
        shutil.move(source, folder / "epvs.sqlite")
    else:
        migrate.upgrade(owner_url, LAST_MIGRATION)
        with _open(f"sqlite:///{source}") as old, _open(owner_url) as new:
            _copy_rows(old, new)
    made_in = (folder / "data-dir").read_text()
    with _open(owner_url) as connection:
        for table in ("instances", "quarantined_instances", "report_objects"):
            moved = sa.text(f"UPDATE {table} SET path = replace(path, :old, :new)")
            connection.execute(moved, {"old": made_in, "new": str(folder)})


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
        if table.name == "alembic_version":
            continue
        rows = [
            {name: _with_zone(value) for name, value in row.items()}
            for row in old.execute(sa.select(source.tables[table.name])).mappings()
        ]
        if table.name == "audit_head":  # the migrations have made its only row
            new.execute(sa.update(table).values(**rows[0]))
        elif rows:
            new.execute(sa.insert(table), rows)
        key = table.primary_key.columns.values()[0]
        if len(table.primary_key) == 1 and key.autoincrement is True and rows:
            top = max(row[key.name] for row in rows)
            sequence = sa.func.pg_get_serial_sequence(table.name, key.name)
            new.execute(sa.select(sa.func.setval(sequence, top)))


def _with_zone(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
