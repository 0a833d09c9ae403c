"""Attack: whoever takes over a process of the node rewrites the audit trail in PostgreSQL.

The node works as a role that can only add audit events; the owner of the tables migrates. All tests
of ``tests/integration`` that take PostgreSQL work as the runtime role, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from core.errors import ConfigurationError, Unavailable
from core.settings import load_settings
from db import audit, commands, grants, migrate, outbox, queries
from db.delivery import claims
from db.enums import DeliveryState, Proof
from db.grading import leases
from db.models import Delivery
from db.receiving.intake import record_instances
from db.session import create_engine, transaction, unit_of_work
from db.views import VIEWS, read_view
from node import doctor
from tests.support.builders.records import (
    ARCHIVE,
    PACS,
    after,
    claim,
    grade_study,
    instance,
    queue_study,
    reject_study,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from tests.support.servers.postgres import PostgresServer


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


@pytest.fixture
def own_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Name of an empty database in which the script of the roles has run."""
    name = postgres_server.create_database()
    postgres_server.create_roles(name)
    yield name
    postgres_server.drop_database(name)


def _problems(url: str) -> list[str]:
    engine = create_engine(url)
    with transaction(engine) as connection:
        found = grants.find_problems(connection)
    engine.dispose()
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET event = 'x'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "DROP TABLE audit_events",
        "ALTER TABLE audit_events DISABLE TRIGGER ALL",
        "ALTER TABLE audit_events ADD COLUMN x integer",
        "DROP TRIGGER audit_events_no_change ON audit_events",
        "CREATE TRIGGER x BEFORE INSERT ON audit_events EXECUTE FUNCTION refuse_audit_change()",
        "DROP FUNCTION move_audit_head() CASCADE",
        "INSERT INTO audit_head VALUES (2, 1, 'x')",
        "UPDATE audit_head SET seq = 99",
        "DELETE FROM audit_head",
        "TRUNCATE audit_head",
        "UPDATE alembic_version SET version_num = '0001'",
        "DELETE FROM studies",
        "DROP VIEW worklist_results",
        "CREATE TABLE x (y integer)",
        "CREATE TEMPORARY TABLE x (y integer)",
        "SET session_replication_role = replica",
        "SET ROLE epvs_owner",
        "ALTER ROLE epvs_node SUPERUSER",
    ],
)
def test_the_runtime_role_can_change_neither_the_schema_nor_the_past(
    migrated: Engine, statement: str
) -> None:
    with pytest.raises(DBAPIError, match="InsufficientPrivilege"), migrated.begin() as connection:
        connection.execute(text(statement))
    with unit_of_work(migrated) as session:
        assert audit.verify(session).checked == 1


@pytest.fixture(scope="module")
def migrated(postgres_server: PostgresServer) -> Iterator[Engine]:
    """A migrated database with one audit event, as the runtime role."""
    name = postgres_server.create_database()
    postgres_server.create_roles(name)
    url = postgres_server.url(name)
    migrate.upgrade(postgres_server.owner_url(name), runtime_url=url)
    engine = create_engine(url)
    with unit_of_work(engine) as session:
        audit.append(session, "node-started")
    yield engine
    engine.dispose()
    postgres_server.drop_database(name)


def test_no_event_can_be_added_out_of_sequence(migrated: Engine) -> None:
    """Such an event would break the chain, so that nobody could add another one."""
    for seq, previous in ((99, "hash"), (2, "'x'")):
        statement = text(
            f"INSERT INTO audit_events SELECT {seq}, at, 'x', NULL, NULL, '{{}}', {previous}, 'y' "
            "FROM audit_events WHERE seq = 1"
        )
        with pytest.raises(DBAPIError, match="does not follow"), migrated.begin() as connection:
            connection.execute(statement)


def test_a_temporary_table_does_not_take_the_place_of_the_head(database_engine: Engine) -> None:
    """Where temporary tables are allowed; the trigger runs with the rights of the owner."""
    with unit_of_work(database_engine) as session:
        session.execute(text("CREATE TEMPORARY TABLE audit_head AS TABLE audit_head"))
        audit.append(session, "node-started")
        assert session.scalar(text("SELECT seq FROM public.audit_head")) == 1
        assert session.scalar(text("SELECT seq FROM pg_temp.audit_head")) == 0


def test_the_runtime_role_can_do_the_work_of_the_node(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        rejected = queue_study(session)
        record_instances(session, [instance(1, content="other bytes")])
        reject_study(session, rejected)
        graded = queue_study(session, study="1.2.4")
        expired = claim(session, graded)
        assert leases.sweep(session, now=after(200), max_attempts=3) == [graded]
        assert outbox.due(session, now=after(200))
        grade_study(session, graded, PACS, ARCHIVE, at=210)
    with unit_of_work(database_engine) as session:
        delivery_ids = session.scalars(select(Delivery.id).order_by(Delivery.destination)).all()
    with unit_of_work(database_engine) as session:
        for delivery_id in delivery_ids:
            held = claims.claim_delivery(session, delivery_id, now=after(300), lease_s=60)
            assert held is not None
            claims.record_delivered(
                session, held, now=after(301), proof=Proof.STORE_STATUS, statuses={}
            )
        states = set(session.scalars(select(Delivery.state)))
        assert states == {DeliveryState.DELIVERED}
        assert outbox.due(session, now=after(999)) == []
    with unit_of_work(database_engine) as session:
        assert expired.revision_id == graded
        commands.reprocess(session, "1.2.4", now=after(400))
        commands.rearm_deliveries(session, None, now=after(400))
        assert queries.show_study(session, "1.2.4")["revisions"]
        assert queries.list_studies(session, None)
        assert [read_view(session, view) for view in VIEWS]
        assert audit.verify(session).ok


def test_migrating_gives_the_roles_what_they_need(
    postgres_server: PostgresServer, own_database: str
) -> None:
    url, owner_url = postgres_server.url(own_database), postgres_server.owner_url(own_database)
    migrate.upgrade(owner_url)
    assert "role epvs_node lacks SELECT on studies" in _problems(url)
    migrate.upgrade(owner_url, runtime_url=url)
    assert _problems(url) == []
    engine = create_engine(owner_url)
    with engine.begin() as connection:
        connection.execute(text("GRANT DELETE ON audit_events TO epvs_node"))
    assert _problems(url) == ["role epvs_node has DELETE on audit_events"]
    migrate.upgrade(owner_url, runtime_url=url)
    assert _problems(url) == []
    engine.dispose()


def test_a_missing_privilege_is_not_charged_to_the_study(database_engine: Engine) -> None:
    with pytest.raises(Unavailable, match="permission denied"), unit_of_work(database_engine) as s:
        s.execute(text("DELETE FROM studies"))


def test_a_database_of_an_earlier_version_is_handed_over(
    postgres_server: PostgresServer, own_database: str
) -> None:
    """Until 0.1 a superuser created the tables, and the node worked as that superuser."""
    superuser_url = postgres_server.url(own_database, "postgres")
    migrate.upgrade(superuser_url, "0007")
    assert _problems(superuser_url) == ["role postgres is a superuser"]
    engine = create_engine(superuser_url)
    with engine.begin() as connection:
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO epvs_node"))
    engine.dispose()

    postgres_server.create_roles(own_database)
    url, owner_url = postgres_server.url(own_database), postgres_server.owner_url(own_database)
    migrate.upgrade(owner_url, runtime_url=url)
    assert _problems(url) == []
    engine = create_engine(url)
    with unit_of_work(engine) as session:
        queue_study(session)
        assert audit.verify(session).ok
    engine.dispose()


def test_a_role_that_does_not_exist_is_named(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()
    runtime_url = postgres_server.url(name, "nobody")
    with pytest.raises(ConfigurationError, match=r"no role 'nobody'.*docker/postgres/roles.sql"):
        migrate.upgrade(postgres_server.owner_url(name), runtime_url=runtime_url)
    assert migrate.current_revision(postgres_server.owner_url(name)) is None
    postgres_server.drop_database(name)


def test_the_runtime_role_cannot_migrate(
    postgres_server: PostgresServer, database_url: str, own_database: str
) -> None:
    for url in (database_url, postgres_server.url(own_database)):
        with pytest.raises(ConfigurationError, match=r"'epvs_node'.*EPVS_DATABASE_OWNER_URL"):
            migrate.upgrade(url)


def test_readers_see_the_views_and_nothing_else(
    database_url: str,
) -> None:
    superuser = create_engine(database_url.replace("epvs_node@", "postgres@"))
    with superuser.connect() as connection:
        connection.execute(text("SET ROLE epvs_reader"))
        for view in VIEWS:
            connection.execute(text(f"SELECT * FROM {view}"))
        for statement in ("SELECT * FROM instances", "SELECT * FROM audit_events"):
            with (
                pytest.raises(DBAPIError, match="InsufficientPrivilege"),
                connection.begin_nested(),
            ):
                connection.execute(text(statement))
    superuser.dispose()


@pytest.mark.parametrize(
    ("role", "detail"),
    [
        ("epvs_node", "works without DDL and can only add audit events"),
        ("epvs_owner", "role epvs_owner owns the tables"),
        ("postgres", "role postgres is a superuser"),
    ],
)
def test_doctor_names_a_role_that_may_do_too_much(
    database_url: str, role: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "run_module", lambda *_, **__: iter(()))
    settings = load_settings(database_url=database_url.replace("epvs_node@", f"{role}@"))
    checks = {check.name: check for check in doctor.examine(settings)}
    assert checks["database"].ok
    assert checks["database role"].ok is (role == "epvs_node")
    assert checks["database role"].detail == detail
