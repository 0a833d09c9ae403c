"""The cost of the frequent queries does not grow with the number of studies."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text

from db import outbox
from db.delivery import order
from db.delivery.claims import record_postponed
from db.grading.leases import claim_next, claim_revision, sweep
from db.grading.results import load_closed_study
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import record_instances
from db.session import create_engine, unit_of_work
from tests.support.builders.records import PACS, after, grade_study, instance

if TYPE_CHECKING:
    from pathlib import Path


_MODEL_USAGE = "SELECT * FROM model_usage"


def test_no_hot_query_scans_a_table(sqlite_template: Path, tmp_path: Path) -> None:
    """Checked in SQLite's query plans: SEARCH uses an index, SCAN reads a whole table."""
    path = tmp_path / "epvs.sqlite"
    path.write_bytes(sqlite_template.read_bytes())
    engine = create_engine(f"sqlite:///{path}")
    statements: list[str] = []

    @event.listens_for(engine, "connect")
    def _trace(connection: Any, _record: Any) -> None:
        connection.set_trace_callback(statements.append)

    with unit_of_work(engine) as session:
        record_instances(session, [instance(1), instance(1, content="changed")])
        (revision_id,) = close_quiet_studies(
            session, now=after(30), quiet_period_s=30, max_open_s=60
        )
        outbox.mark_notified(session, [outbox.due(session, now=after(30))[0].id], now=after(30))
        claim_revision(session, revision_id, now=after(31), lease_s=1, max_attempts=3)
        sweep(session, now=after(33), max_attempts=3)
        load_closed_study(session, revision_id)
        grade_study(session, revision_id, PACS, at=40)
        claim_next(session, now=after(41), lease_s=1, max_attempts=3)
        for at in (50, 150):
            claim = order.claim_next(session, now=after(at), lease_s=60, per_destination=2)
            assert claim is not None
            record_postponed(
                session, claim, now=after(at), error="", status=None, available=at == 150
            )
        for view in ("worklist_results", "turnaround"):
            session.execute(text(f"SELECT * FROM {view} WHERE study_uid = 'x'"))
        session.execute(text(_MODEL_USAGE))
    engine.dispose()

    with closing(sqlite3.connect(path)) as connection:
        plans = {
            statement: connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            for statement in statements
            if statement.startswith(("SELECT", "UPDATE", "DELETE"))
        }
    assert len(plans) > 20
    assert any(statement.startswith("UPDATE revisions SET last_received_at") for statement in plans)
    # The one row of audit_head, and the rows that the view's own searches have found.
    harmless = ("SCAN audit_head", "SCAN turnaround")
    of_model_usage = plans.pop(_MODEL_USAGE)
    scans = [
        (step[-1], statement)
        for statement, plan in plans.items()
        for step in plan
        if step[-1].startswith("SCAN") and step[-1] not in harmless
    ]
    assert not scans
    reads = [step[-1] for step in of_model_usage if "grades" in step[-1]]
    assert len(reads) == 2
    assert all("COVERING INDEX" in read for read in reads)
