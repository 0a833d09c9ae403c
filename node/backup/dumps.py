"""Dumps of the database, made while the node works, and their restoration.

SQLite is copied by its online backup interface, PostgreSQL by ``pg_dump`` and ``pg_restore``.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from core.errors import ConfigurationError, EpvsError
from db import migrate
from db.grants import require_ddl, require_utf8
from db.session import create_engine, transaction, unit_of_work
from node.backup.manifest import copy_durably

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL
    from sqlalchemy.orm import Session

    from core.settings import Settings
    from node.backup.manifest import Manifest

SQLITE: Final = "database.sqlite"
POSTGRESQL: Final = "database.dump"


def dump_name(settings: Settings) -> str:
    """Return the name of the dump of such a database."""
    return SQLITE if settings.is_sqlite else POSTGRESQL


@contextmanager
def dump(settings: Settings, folder: Path) -> Iterator[tuple[Session, str, str]]:
    """Dump the database into `folder`, and open a transaction that sees exactly what is in it.

    Yields
    ------
    session : Session
    server, program : str
        Versions of the database and of what made the dump.

    Raises
    ------
    EpvsError
        The dump failed.
    """
    if settings.is_sqlite:
        target = folder / SQLITE
        _copy_sqlite(sqlite_path(settings), target)
        engine = create_engine(f"sqlite:///{target}")
        try:
            with unit_of_work(engine, read_only=True) as session:
                yield session, f"SQLite {sqlite3.sqlite_version}", "online backup"
        finally:
            engine.dispose()
        _make_one_file(target)
        return
    url = make_url(settings.database_owner_url or settings.database_url)
    engine = create_engine(url.render_as_string(hide_password=False))
    try:
        frozen = engine.execution_options(isolation_level="REPEATABLE READ")
        with unit_of_work(frozen, read_only=True) as session:
            # The dump may take longer than a transaction may otherwise idle.
            session.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            server = str(session.scalar(sa.text("SHOW server_version")))
            program = _require_program("pg_dump", server)
            snapshot = session.scalar(sa.text("SELECT pg_export_snapshot()"))
            _run(
                *("pg_dump", "--format=custom", f"--snapshot={snapshot}"),
                f"--file={folder / POSTGRESQL}",
                url=url,
            )
            yield session, f"PostgreSQL {server}", program
    finally:
        engine.dispose()


def require_empty(settings: Settings) -> None:
    """Check that the configured database has no tables and can be restored into.

    Raises
    ------
    EpvsError
        It has, or it cannot.
    """
    if settings.is_sqlite:
        path = sqlite_path(settings)
        if path.exists():
            raise EpvsError(
                f"The database {path} exists already.",
                "A backup is restored into an empty installation only: choose another "
                "EPVS_DATA_DIR, or move the old data folder away.",
            )
        return
    engine = create_engine(settings.database_owner_url or settings.database_url)
    try:
        with transaction(engine) as connection:
            if sa.inspect(connection).get_table_names():
                raise EpvsError(
                    "The database that EPVS_DATABASE_URL names has tables already.",
                    "A backup is restored into an empty database only: create another one, or drop "
                    "this one if nothing in it is needed.",
                )
            require_ddl(connection)
            require_utf8(connection)
    finally:
        engine.dispose()


def require_programs(settings: Settings, manifest: Manifest) -> None:
    """Check that the database's server, and ``pg_restore``, are not older than what was dumped.

    Raises
    ------
    EpvsError
        One is.
    """
    if settings.is_sqlite:
        return
    _require_program("pg_restore", manifest.program)
    engine = create_engine(settings.database_url)
    try:
        with transaction(engine) as connection:
            server = str(connection.scalar(sa.text("SHOW server_version")))
    finally:
        engine.dispose()
    if _major(server) < _major(manifest.server):
        raise EpvsError(
            f"The backup is of {manifest.server}, and this server is PostgreSQL {server}.",
            f"Use a server of version {_major(manifest.server)} or later.",
        )


def load(settings: Settings, folder: Path) -> None:
    """Restore the dump in `folder` into the configured, empty database, wholly or not at all.

    Raises
    ------
    EpvsError
        The restoration failed.
    """
    if settings.is_sqlite:
        path = sqlite_path(settings)
        unfinished = path.with_name(f"{path.name}.part")
        unfinished.unlink(missing_ok=True)
        copy_durably(folder / SQLITE, unfinished)
        unfinished.rename(path)
        return
    owner_url = settings.database_owner_url or settings.database_url
    _run(
        *("pg_restore", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error"),
        str(folder / POSTGRESQL),
        url=make_url(owner_url),
    )
    migrate.upgrade(owner_url, runtime_url=settings.database_url)  # grants what the node needs


def sqlite_path(settings: Settings) -> Path:
    """Return the file of a SQLite database."""
    return Path(make_url(settings.database_url).database or "").absolute()


def _copy_sqlite(path: Path, target: Path) -> None:
    # All pages in one step: one read transaction, beside which others may write (WAL).
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise EpvsError(
            f"The database cannot be copied: {error}.",
            "Check the space where the backup is to be, and the disk of the database.",
        ) from error
    if verdict != "ok":
        raise damaged(str(path), verdict)


def describe(settings: Settings) -> str:
    """Name the database, without a password."""
    if settings.is_sqlite:
        return str(sqlite_path(settings))
    return make_url(settings.database_url).render_as_string(hide_password=True)


def damaged(database: str, problem: str) -> EpvsError:
    """Error about a database whose content cannot be read."""
    return EpvsError(
        f"The database {database} is damaged: {problem}.",
        "Keep the last good backup, and stop the node before you repair anything.",
    )


def _make_one_file(path: Path) -> None:
    """Take the copy out of WAL mode, so that it needs no file beside it, and make it durable."""
    with closing(sqlite3.connect(path)) as copy:
        copy.execute("PRAGMA journal_mode=DELETE")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_program(program: str, than: str) -> str:
    """Check that a program of PostgreSQL is not older than `than`, and return its version."""
    try:
        done = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigurationError(
            f"The program {program} is not on the PATH, or does not run.",
            f"Install the PostgreSQL client, version {_major(than)} (Debian: postgresql-client).",
        ) from error
    version = done.stdout.strip()
    if _major(version) < _major(than):
        raise ConfigurationError(
            f"{version} is older than {than}.",
            f"Install the PostgreSQL client of version {_major(than)} or later.",
        )
    return version


def _major(version: str) -> int:
    found = re.search(r"[0-9]+", version)
    return int(found[0]) if found else 0


def _run(program: str, *arguments: str, url: URL) -> None:
    """Run a program of PostgreSQL on a database; the password is in no process list."""
    address = url.set(drivername="postgresql", password=None).render_as_string()
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    done = subprocess.run(
        [program, "--no-password", f"--dbname={address}", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise EpvsError(
            f"{program} failed: {lines[0]}",
            "If a privilege is missing, set EPVS_DATABASE_OWNER_URL: the owner of the tables.",
        )
