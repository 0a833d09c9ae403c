"""Connections and transactions: one engine for each process, one unit of work per transaction."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from core.errors import Unavailable
from core.links import describe_link

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUSY_TIMEOUT_S = 30
_SERVER_SETTINGS: Final = {
    "jit": "off",  # compiling takes longer than any query of the node
    "lock_timeout": f"{_BUSY_TIMEOUT_S}s",
    # A cached plan made for small tables would become slower with every study.
    "plan_cache_mode": "force_custom_plan",
    # A host that is lost within a transaction keeps its locks until the server notices: by default
    # after two hours, in which no other host could append to the audit trail.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}
"""PostgreSQL's settings for every connection."""
_INSUFFICIENT_PRIVILEGE = "42501"  # SQLSTATE


def create_engine(url: str) -> Engine:
    """Create the engine for a SQLite file or a PostgreSQL server.

    SQLite runs in WAL mode with ``synchronous=FULL``, so that a commit survives a power failure.
    Every transaction that may write takes the write lock at its beginning (BEGIN IMMEDIATE): SQLite
    refuses the lock to a transaction that has already read an older state.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` or ``postgresql://user:password@host:port/name``. Parameters after ``?``
        are libpq's, for example ``sslmode=verify-full``.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _create_sqlite_engine(parsed)
    return sa.create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        hide_parameters=True,  # patient data must not enter the text of exceptions
        connect_args={
            "connect_timeout": 5,
            "client_encoding": "utf8",  # by default that of the database, which may have none
            "options": " ".join(f"-c {name}={value}" for name, value in _SERVER_SETTINGS.items()),
            "tcp_user_timeout": 30_000,  # detect a lost database host within 30 s
        },
    )


def _create_sqlite_engine(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # otherwise sqlite3 opens deferred transactions itself
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        driver: Any = connection.connection.driver_connection
        driver.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        driver.execute("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def describe_connection(engine: Engine) -> str:
    """Return whether connections to the database are encrypted, for ``epvs-node doctor``.

    Raises
    ------
    Unavailable
        The database does not respond.
    """
    if engine.dialect.name == "sqlite":
        return describe_link(None, is_encrypted=False)
    with transaction(engine) as connection:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        is_encrypted = bool(connection.scalar(sa.text(query)))
    host = engine.url.host or str(engine.url.query.get("host", ""))
    return describe_link(host, is_encrypted=is_encrypted)


@contextmanager
def unit_of_work(engine: Engine, *, read_only: bool = False) -> Iterator[Session]:
    """One transaction: committed at the end, rolled back on any exception.

    Parameters
    ----------
    engine : Engine
    read_only : bool
        The block only reads. It then never waits for a writer.

    Raises
    ------
    Unavailable
        The database does not respond, or refused the transaction for now (locks, disk full).
    """
    if read_only:
        engine = engine.execution_options(read_only=True, postgresql_readonly=True)
    with (
        _errors_of(engine),
        Session(engine, expire_on_commit=False) as session,
        session.begin(),
    ):
        yield session


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction on a connection: like `unit_of_work`, without the cost of a session.

    Parameters
    ----------
    engine : Engine

    Raises
    ------
    Unavailable
        As `unit_of_work` does, also for errors of `db.receiving.prepared` statements.
    """
    with _errors_of(engine), engine.begin() as connection:
        yield connection


@contextmanager
def _errors_of(engine: Engine) -> Iterator[None]:
    """Raise `Unavailable` for errors of SQLAlchemy and of the driver that say so.

    A missing privilege is one of them: it is the database's fault, not that of the work at hand.
    """
    driver: Any = engine.dialect.loaded_dbapi
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise _unavailable(error) from error
    except (driver.OperationalError, driver.InterfaceError) as error:
        raise _unavailable(error) from error
    except (DBAPIError, driver.ProgrammingError) as error:
        cause = getattr(error, "orig", error)
        if (
            getattr(error, "connection_invalidated", False)
            or getattr(cause, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE
        ):
            raise _unavailable(error) from error
        raise


def _unavailable(error: Exception) -> Unavailable:
    """Build the exception from the first line of the driver's message, which has no row values."""
    reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    return Unavailable(
        "database",
        f"The database is not available: {reason}.",
        "Check EPVS_DATABASE_URL and run 'epvs-node doctor'.",
    )


def insert_or_ignore(session: Session, table: Any) -> postgresql.Insert | sqlite.Insert:
    """Build an INSERT that ignores rows whose key exists already."""
    return insert_or_ignore_of(session.get_bind().dialect.name, table)


def insert_or_ignore_of(dialect_name: str, table: Any) -> postgresql.Insert | sqlite.Insert:
    """Build the statement of `insert_or_ignore` for a dialect, given by name."""
    if dialect_name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()
