"""Schema migrations, run by the program itself: Alembic without an ini file."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url

from db import grants
from db.session import create_engine, transaction

_SCRIPTS = Path(__file__).parent / "migrations"
_UPGRADE_LOCK = 0x65707674  # key of the advisory lock: only one process migrates at a time


def upgrade(url: str, revision: str = "head", *, runtime_url: str | None = None) -> None:
    """Migrate the database to `revision` in one transaction; safe to run concurrently.

    Parameters
    ----------
    url : str
        Database, as the owner of its tables.
    revision : str
    runtime_url : str, optional
        The same database as the role that the node works as. On PostgreSQL the role is granted what
        it needs.

    Raises
    ------
    Unavailable
        The database does not respond.
    ConfigurationError
        The role of `url` may not change the schema, that of `runtime_url` does not exist, or the
        database does not store UTF-8.
    """
    engine = create_engine(url)
    try:
        with transaction(engine) as connection:
            if connection.dialect.name != "postgresql":
                command.upgrade(make_config(connection), revision)
                return
            grants.require_ddl(connection)
            grants.require_utf8(connection)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
            command.upgrade(make_config(connection), revision)
            grants.grant(connection, make_url(runtime_url or url).username)
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


def is_newer(revision: str) -> bool:
    """Whether a migration is of a later version of the node: this one does not know it."""
    scripts = ScriptDirectory.from_config(make_config())
    return revision not in {script.revision for script in scripts.walk_revisions()}


def make_config(connection: sa.Connection | None = None) -> Config:
    """Build Alembic's configuration for commands on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
