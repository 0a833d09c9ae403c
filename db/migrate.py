"""Schema migrations, run by the program itself: Alembic without an ini file."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from db.session import create_engine, transaction

_SCRIPTS = Path(__file__).parent / "migrations"
_UPGRADE_LOCK = 0x65707674  # key of the advisory lock: only one process migrates at a time


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate the database to `revision` in one transaction; safe to run concurrently.

    Raises
    ------
    Unavailable
        The database does not respond.
    """
    engine = create_engine(url)
    try:
        with transaction(engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
            command.upgrade(make_config(connection), revision)
    finally:
        engine.dispose()


def current_revision(url: str) -> str | None:
    """Return the migration that the database is at; None for an empty one.

    Raises
    ------
    Unavailable
        The database does not respond.
    """
    engine = create_engine(url)
    try:
        with transaction(engine) as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def head_revision() -> str:
    """Return the migration that this version of the node requires."""
    return str(ScriptDirectory.from_config(make_config()).get_current_head())


def make_config(connection: sa.Connection | None = None) -> Config:
    """Build Alembic's configuration for commands on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
