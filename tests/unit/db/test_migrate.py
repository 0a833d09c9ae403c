from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, inspect, select, text

from core.errors import Unavailable
from db import audit, migrate, outbox
from db.enums import OutboxKind, Proof
from db.models import Base, Delivery, OutboxRow, Study
from db.session import create_engine, transaction, unit_of_work
from db.views import VIEWS, read_view
from tests.support.builders.records import STUDY, after
from tests.support.upgrade.loading import LAST_MIGRATION, insert_rows, read_rows, unpack_node

RENAMED = {"ring_at": "notify_at", "rung": "notifications"}
"""Columns by their names before migration 0007."""

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


def test_the_migrated_schema_is_that_of_the_models(database_engine: Engine) -> None:
    with database_engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_the_migrated_checks_are_those_of_the_models(database_engine: Engine) -> None:
    inspector = inspect(database_engine)
    for table in Base.metadata.tables.values():
        expected = {str(c.name) for c in table.constraints if isinstance(c, CheckConstraint)}
        assert {c["name"] for c in inspector.get_check_constraints(table.name)} == expected


def test_everything_is_named_and_commented() -> None:
    for table in Base.metadata.tables.values():
        assert table.comment
        assert all(column.comment for column in table.columns), table.name
        assert all(constraint.name for constraint in table.constraints), table.name


def test_several_processes_may_upgrade_an_empty_database_at_once(empty_database_url: str) -> None:
    assert migrate.current_revision(empty_database_url) is None
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(migrate.upgrade, [empty_database_url] * 3))
    assert migrate.current_revision(empty_database_url) == migrate.head_revision()


def test_migrations_can_be_downgraded(owner_engine: Engine) -> None:
    with owner_engine.begin() as connection:
        config = migrate.make_config(connection)
        command.downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
        command.upgrade(config, "head")
        assert connection.scalar(text("SELECT count(*) FROM worklist_results")) == 0


def test_every_migration_keeps_the_rows_that_it_finds(
    empty_database_url: str, tmp_path: Path
) -> None:
    """From the first revision on, with the rows of a node in the middle of its work.

    Rows of a table are inserted as soon as it exists; nothing of a row is lost at any step.
    """
    source = unpack_node(tmp_path / "node")
    scripts = ScriptDirectory.from_config(migrate.make_config())
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    known: set[str] = set()
    for revision in revisions:
        before = read_rows(empty_database_url) if known else {}
        migrate.upgrade(empty_database_url, revision)
        found = read_rows(empty_database_url)
        for table, rows in before.items():
            if rows:  # migration 0002 adds the only row of a table
                assert len(found[table]) == len(rows), (revision, table)
            for row, now in zip(rows, found[table], strict=bool(rows)):
                kept = {name: now.get(RENAMED.get(name, name), now.get(name)) for name in row}
                assert kept == row, (revision, table)
        if revision <= LAST_MIGRATION:
            insert_rows(source, empty_database_url)
        known |= set(found)
    assert len(found["revisions"]) == 9
    engine = create_engine(empty_database_url)
    with unit_of_work(engine, read_only=True) as session:
        assert audit.verify(session).ok
        assert len(read_view(session, "worklist_results")) == 8
        for view in VIEWS:
            read_view(session, view)
    engine.dispose()


def test_faster_views_show_what_they_showed(empty_database_url: str, tmp_path: Path) -> None:
    """Migration 0014, there and back."""
    source = unpack_node(tmp_path / "node")
    migrate.upgrade(empty_database_url, LAST_MIGRATION)
    insert_rows(source, empty_database_url)
    migrate.upgrade(empty_database_url, "0013")
    engine = create_engine(empty_database_url)

    def shown() -> list[list[tuple[str, ...]]]:
        with unit_of_work(engine, read_only=True) as session:
            return [
                sorted(tuple(map(str, row.values())) for row in read_view(session, view))
                for view in ("model_usage", "turnaround")
            ]

    before = shown()
    assert [len(rows) for rows in before] == [2, 9]
    migrate.upgrade(empty_database_url, "0014")
    assert shown() == before
    with engine.begin() as connection:
        command.downgrade(migrate.make_config(connection), "0013")
    assert shown() == before
    engine.dispose()


def test_a_waiting_revision_survives_the_renaming_of_the_outbox_columns(
    empty_database_url: str,
) -> None:
    """Migration 0007, on a database at 0006 with a row in every table concerned."""
    migrate.upgrade(empty_database_url, "0006")
    engine = create_engine(empty_database_url)
    # As each dialect stores it: SQLite has no time zones, the digits are UTC.
    zone = "" if engine.dialect.name == "sqlite" else "+00"
    now = f"{after(0):%Y-%m-%d %H:%M:%S.%f}{zone}"
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO studies VALUES (:uid, 'CANARY-7', '', '', :now)"),
            {"uid": STUDY, "now": now},
        )
        connection.execute(
            text(
                "INSERT INTO revisions (id, study_uid, number, state, state_since, opened_at, "
                "last_received_at, attempt, token) "
                "VALUES ('r1', :uid, 1, 'queued', :now, :now, :now, 0, 0)"
            ),
            {"uid": STUDY, "now": now},
        )
        connection.execute(
            text(
                "INSERT INTO deliveries (id, revision_id, destination, state, attempt, token, "
                "waiting_since, proof) "
                "VALUES ('d1', 'r1', 'PACS@127.0.0.1:4242', 'delivered', 1, 1, :now, 'c-find')"
            ),
            {"now": now},
        )
        connection.execute(
            text("INSERT INTO outbox (revision_id, ring_at, rung) VALUES ('r1', :now, 7)"),
            {"now": now},
        )
    migrate.upgrade(empty_database_url)
    with unit_of_work(engine) as session:
        (item,) = outbox.due(session, now=after(1))
        assert (item.kind, item.target_id) == (OutboxKind.REVISION, "r1")
        row = session.scalars(select(OutboxRow)).one()
        assert (row.notifications, row.notify_at) == (7, after(0))
        assert session.get_one(Delivery, "d1").proof is Proof.C_FIND
    with engine.begin() as connection:
        command.downgrade(migrate.make_config(connection), "0006")
        assert connection.scalar(text("SELECT rung FROM outbox")) == 7
    engine.dispose()


def test_earlier_refusals_are_still_counted(empty_database_url: str) -> None:
    """Migration 0009, on a database with audit events of refusals."""
    migrate.upgrade(empty_database_url, "0008")
    engine = create_engine(empty_database_url)
    with unit_of_work(engine) as session:
        for at, event, detail in (
            (1, "association-refused", {"reason": "caller-not-on-allow-list", "calling_ae": "CT"}),
            (2, "association-refused", {"reason": "caller-not-on-allow-list", "calling_ae": "CT"}),
            (3, "contexts-refused", {"sop_classes": {"1.2": "x"}, "calling_ae": "CT"}),
            (4, "connection-refused", {"reason": "too-many-connections", "times": 7}),
            (5, "connection-refused", {"reason": "too-many-connections", "times": 5}),
            (6, "delivery-done", {"reason": "not a refusal"}),
        ):
            detail = {**detail, "peer_address": "192.0.2.7"}
            audit.append(session, event, detail=detail, now=after(at))
        for number in range(600):
            detail = {"reason": "called-ae-not-recognised", "peer_address": f"192.0.{number}"}
            audit.append(session, "association-refused", detail=detail, now=after(-number))
    with unit_of_work(engine, read_only=True) as session:
        before = read_view(session, "refusals")
    migrate.upgrade(empty_database_url)
    with unit_of_work(engine, read_only=True) as session:
        rows = read_view(session, "refusals")
    assert sum(row["times"] for row in rows) == sum(row["times"] for row in before) == 615
    assert len(rows) == 501
    found = {(row["event"], row["calling_ae"], row["peer_address"]): row for row in rows}
    connections = found["connection-refused", None, "192.0.2.7"]
    assert (connections["times"], connections["reason"]) == (12, "too-many-connections")
    assert (connections["first_at"], connections["last_at"]) == (after(4), after(5))
    assert found["contexts-refused", "CT", "192.0.2.7"]["reason"] == "sop-class-not-taken"
    assert found["association-refused", "*", "*"]["times"] == 103
    with engine.begin() as connection:
        command.downgrade(migrate.make_config(connection), "0008")
    with unit_of_work(engine, read_only=True) as session:
        assert len(read_view(session, "refusals")) == 603
    engine.dispose()


def test_a_known_study_was_opened_by_the_sender_of_its_earliest_instance(
    empty_database_url: str,
) -> None:
    """Migration 0010, on a database from before it."""
    migrate.upgrade(empty_database_url, "0007")
    engine = create_engine(empty_database_url)
    zone = "" if engine.dialect.name == "sqlite" else "+00"
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO studies VALUES (:uid, 'CANARY-7', '', '', :now)",
            "INSERT INTO studies VALUES ('1.2.3', 'CANARY-7', '', '', :now)",
            (
                "INSERT INTO revisions (id, study_uid, number, state, state_since, opened_at, "
                "last_received_at, attempt, token) "
                "VALUES ('r1', :uid, 1, 'receiving', :now, :now, :now, 0, 0)"
            ),
        ):
            values = {"uid": STUDY, "now": f"{after(0):%Y-%m-%d %H:%M:%S.%f}{zone}"}
            connection.execute(
                text(statement), values if ":uid" in statement else {"now": values["now"]}
            )
        for number, caller in ((3, "LATER"), (1, "FIRST"), (2, "SECOND")):
            connection.execute(
                text(
                    "INSERT INTO instances (sop_instance_uid, study_uid, first_revision_id, "
                    "series_uid, sop_class_uid, transfer_syntax_uid, modality, path, sha256, "
                    "size_bytes, calling_ae, peer_address, received_at) "
                    "VALUES (:sop, :uid, 'r1', '1', '1', '1', 'MR', '', '', 1, :ae, :host, :at)"
                ),
                {
                    "uid": STUDY,
                    "sop": f"1.2.{number}",
                    "ae": caller,
                    "host": f"192.0.2.{number}",
                    "at": f"{after(number):%Y-%m-%d %H:%M:%S.%f}{zone}",
                },
            )
    migrate.upgrade(empty_database_url)
    with unit_of_work(engine) as session:
        study, empty = session.get_one(Study, STUDY), session.get_one(Study, "1.2.3")
        assert (study.calling_ae, study.peer_address) == ("FIRST", "192.0.2.1")
        assert (empty.calling_ae, empty.peer_address) == ("", "")
        assert study.identity_revision == 1
    engine.dispose()


def test_a_database_that_another_process_locks_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.session._BUSY_TIMEOUT_S", 0.1)
    url = f"sqlite:///{tmp_path / 'locked.sqlite'}"
    engine = create_engine(url)
    with transaction(engine):
        for refused in (migrate.upgrade, migrate.current_revision):
            with pytest.raises(Unavailable, match="locked"):
                refused(url)
    engine.dispose()


def test_a_database_that_does_not_respond_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        migrate.current_revision("postgresql://epvs@127.0.0.1:9/epvs")
