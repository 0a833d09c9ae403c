"""Privileges on PostgreSQL: the owner of the tables migrates, the runtime role works without DDL.

The runtime role may add audit events but neither change nor remove one, so that a break-in at the
receiver or a worker cannot rewrite the past. ``docker/postgres/roles.sql`` creates the roles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.engine import Connection

READER_ROLE: Final = "epvs_reader"
"""Role whose members may read the views, if it exists."""

_USUAL: Final = ("SELECT", "INSERT", "UPDATE")
_TABLES: Final = {
    "alembic_version": ("SELECT",),
    "audit_events": ("SELECT", "INSERT"),
    "audit_head": ("SELECT",),  # a trigger of audit_events moves it
    "commitment_requests": (*_USUAL, "DELETE"),
    "file_removals": (*_USUAL, "DELETE"),
    "model_assignments": ("SELECT", "INSERT"),
    "outbox": (*_USUAL, "DELETE"),
    "refusal_counts": (*_USUAL, "DELETE"),
    "stage_timings": (*_USUAL, "DELETE"),
}
"""Privileges of the runtime role on tables where they are not the usual ones."""

_AUDIT_TABLES: Final = ("audit_events", "audit_head")
_FORBIDDEN: Final = ("UPDATE", "DELETE", "TRUNCATE", "TRIGGER")


def require_ddl(connection: Connection) -> None:
    """Check that the role of this connection may change the schema.

    Raises
    ------
    ConfigurationError
        It may not.
    """
    role, may_create = connection.execute(
        sa.text("SELECT current_user, has_schema_privilege(current_schema(), 'CREATE')")
    ).one()
    if not may_create:
        raise ConfigurationError(
            f"The role {role!r} may not change the schema of the database.",
            "Set EPVS_DATABASE_OWNER_URL: the URL of the database as the owner of its tables.",
        )


def require_utf8(connection: Connection) -> None:
    """Check that the database stores text as UTF-8, as names of patients need it.

    Raises
    ------
    ConfigurationError
        It has another encoding, for example none: SQL_ASCII, where the cluster has no locale.
    """
    encoding = connection.scalar(sa.text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise ConfigurationError(
            f"The encoding of the database is {encoding}, but UTF8 is needed.",
            "Create it with CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'.",
        )


def grant(connection: Connection, runtime_role: str | None) -> None:
    """Give the runtime role exactly the privileges that the node needs, and readers the views.

    Parameters
    ----------
    connection : Connection
        To PostgreSQL, as the owner of the tables.
    runtime_role : str, optional
        Role that the node works as. If it is the owner itself, it keeps what it has.

    Raises
    ------
    ConfigurationError
        The role does not exist.
    """
    inspector = sa.inspect(connection)
    views = dict.fromkeys(inspector.get_view_names(), ("SELECT",))
    if runtime_role not in (None, connection.scalar(sa.text("SELECT current_user"))):
        if not _exists(connection, runtime_role):
            raise ConfigurationError(
                f"The database has no role {runtime_role!r}, which EPVS_DATABASE_URL names.",
                "Create the roles with docker/postgres/roles.sql.",
            )
        tables = {name: _TABLES.get(name, _USUAL) for name in inspector.get_table_names()}
        for statement in _statements(connection, runtime_role, {**views, **tables}):
            connection.exec_driver_sql(statement)
    if _exists(connection, READER_ROLE):
        for statement in _statements(connection, READER_ROLE, views):
            connection.exec_driver_sql(statement)


def find_problems(connection: Connection) -> list[str]:
    """Say in words where the role of this connection has too many privileges, or too few.

    Parameters
    ----------
    connection : Connection
        To PostgreSQL, as the role that the node works as.
    """
    role, is_superuser, is_owner = connection.execute(
        sa.text(
            "SELECT current_user, rolsuper, EXISTS (SELECT FROM pg_class WHERE relkind = 'r' "
            "AND relnamespace = current_schema()::regnamespace AND pg_has_role(relowner, 'USAGE')) "
            "FROM pg_roles WHERE rolname = current_user"
        )
    ).one()
    if is_superuser:
        return [f"role {role} is a superuser"]
    if is_owner:
        return [f"role {role} owns the tables"]
    tables = sa.inspect(connection).get_table_names()
    missing = [
        f"role {role} lacks {privilege} on {table}"
        for table in tables
        for privilege in _TABLES.get(table, _USUAL)
        if not _has(connection, table, privilege)
    ]
    excessive = [
        f"role {role} has {privilege} on {table}"
        for table in _AUDIT_TABLES
        for privilege in _FORBIDDEN
        if table in tables and _has(connection, table, privilege)
    ]
    return excessive + missing


def _statements(
    connection: Connection, role: str, privileges: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    quote = connection.dialect.identifier_preparer.quote
    schema, role = quote(str(connection.dialect.default_schema_name)), quote(role)
    yield f"GRANT USAGE ON SCHEMA {schema} TO {role}"
    yield f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"
    for name, granted in privileges.items():
        yield f"REVOKE ALL ON {schema}.{quote(name)} FROM {role}"
        yield f"GRANT {', '.join(granted)} ON {schema}.{quote(name)} TO {role}"


def _exists(connection: Connection, role: str) -> bool:
    found = sa.text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)")
    return bool(connection.scalar(found, {"role": role}))


def _has(connection: Connection, table: str, privilege: str) -> bool:
    granted = sa.text("SELECT has_table_privilege(quote_ident(:name), :privilege)")
    return bool(connection.scalar(granted, {"name": table, "privilege": privilege}))
