"""What must hold among the rows, and that each way to break it is found."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, text, update

from core.settings import load_settings
from db import audit
from db.consistency.records import check_records
from db.consistency.verdict import Invariant
from db.delivery import claims
from db.enums import DeliveryState, RevisionState
from db.grading.leases import claim_revision
from db.models import Delivery, DeliveryObject, GradeRow, OutboxRow, ReportObjectRow, Revision
from db.session import unit_of_work
from tests.support.builders import records as made

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sqlalchemy import Engine

    from db.consistency.verdict import Verdict

LONG = timedelta(days=36500)


def verdicts(engine: Engine) -> dict[Invariant, Verdict]:
    """Every verdict; nothing is overdue, whatever the time."""
    overdue_s = LONG.total_seconds()
    return {v.invariant: v for v in check_records(engine, load_settings(), overdue_s=overdue_s)}


def broken(engine: Engine, overdue: timedelta = LONG) -> list[Invariant]:
    found = check_records(engine, load_settings(), overdue_s=overdue.total_seconds())
    return [verdict.invariant for verdict in found if not verdict.holds]


@pytest.fixture
def graded(database_engine: Engine) -> str:
    """Id of a graded revision with a pending delivery."""
    with unit_of_work(database_engine) as session:
        revision_id = made.queue_study(session)
        made.grade_study(session, revision_id, made.PACS)
    return revision_id


def test_a_node_that_works_breaks_nothing(database_engine: Engine, graded: str) -> None:
    del graded
    found = verdicts(database_engine)
    assert [v for v in found.values() if not v.holds] == []
    assert found[Invariant.OUTCOMES].checked == 1
    assert found[Invariant.AUDIT].checked > 3
    assert set(found) == set(Invariant) - {
        Invariant.STORED_FILES,
        Invariant.ORPHAN_FILES,
        Invariant.TEMPORARY_FILES,
    }


def deliver_all(session: Any, _revision: str) -> None:
    session.execute(update(Delivery).values(state=DeliveryState.DELIVERED))
    session.execute(delete(OutboxRow))


def store_other_content(session: Any, revision_id: str) -> None:
    other = made.queue_study(session, study="1.2.840.99.2", at=100)
    made.grade_study(session, other, made.PACS, at=140)  # the same UIDs and bytes
    changed = update(ReportObjectRow).where(ReportObjectRow.revision_id == revision_id)
    session.execute(changed.values(sha256="0" * 64))


CHANGES: dict[str, tuple[Callable[[Any, str], object], set[Invariant]]] = {
    "grade removed": (
        lambda session, _: [
            session.execute(text("DELETE FROM image_ratings")),
            session.execute(delete(GradeRow)),
        ],
        {Invariant.OUTCOMES},
    ),
    "queued again with its grade": (
        lambda session, _: session.execute(update(Revision).values(state=RevisionState.QUEUED)),
        {Invariant.OUTCOMES, Invariant.OUTBOX},
    ),
    "delivered, its delivery not": (
        lambda session, _: session.execute(update(Revision).values(state=RevisionState.DELIVERED)),
        {Invariant.OUTCOMES},
    ),
    "its deliveries done, itself not": (deliver_all, {Invariant.OUTCOMES}),
    "other content under a known UID": (store_other_content, {Invariant.REPORT_CONTENT}),
    "second result": (
        lambda session, revision_id: audit.append(session, "graded", revision_id=revision_id),
        {Invariant.OUTCOMES},
    ),
    "delivery without objects": (
        lambda session, _: session.execute(delete(DeliveryObject)),
        {Invariant.REPORT_CONTENT},
    ),
    "delivery never notified of": (
        lambda session, _: session.execute(delete(OutboxRow)),
        {Invariant.OUTBOX},
    ),
    "lease without an end": (
        lambda session, _: [
            session.execute(update(Delivery).values(state=DeliveryState.SENDING)),
            session.execute(delete(OutboxRow)),
        ],
        {Invariant.LEASES},
    ),
    "parked without a reason": (
        lambda session, _: [
            session.execute(update(Delivery).values(state=DeliveryState.PARKED)),
            session.execute(delete(OutboxRow)),
        ],
        {Invariant.WAITING},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_no_use_of_the_node_leads_to_is_found(
    owner_engine: Engine, graded: str, change: str
) -> None:
    apply, expected = CHANGES[change]
    with unit_of_work(owner_engine) as session:
        apply(session, graded)
    assert set(broken(owner_engine)) == expected


def test_what_waits_for_longer_than_it_may_is_found(database_engine: Engine, graded: str) -> None:
    """The rows are of years ago: whatever waits is overdue."""
    del graded
    minute = timedelta(minutes=1)
    assert broken(database_engine, minute) == [Invariant.WAITING, Invariant.OUTBOX]
    with unit_of_work(database_engine) as session:
        (delivery,) = session.query(Delivery)
        claims.claim_delivery(session, delivery.id, now=made.after(50), lease_s=30)
    assert broken(database_engine, minute) == [Invariant.LEASES]


def test_studies_wait_their_turn_while_a_worker_grades(database_engine: Engine) -> None:
    minute = timedelta(minutes=1)
    with unit_of_work(database_engine) as session:
        first = made.queue_study(session)
        made.queue_study(session, study="1.2.840.99.2")
    assert Invariant.WAITING in broken(database_engine, minute)
    with unit_of_work(database_engine) as session:
        claim_revision(
            session, first, now=made.after(60), lease_s=LONG.total_seconds(), max_attempts=3
        )
    assert broken(database_engine, minute) == [Invariant.OUTBOX]  # nobody is notified any more


def test_a_changed_audit_event_is_found(
    owner_engine: Engine, graded: str, database_kind: str
) -> None:
    del graded
    disarm = {
        "sqlite": "DROP TRIGGER audit_events_no_update",
        "postgresql": "ALTER TABLE audit_events DISABLE TRIGGER USER",
    }
    with unit_of_work(owner_engine) as session:
        session.execute(text(disarm[database_kind]))
        session.execute(text("UPDATE audit_events SET event = 'forged' WHERE seq = 2"))
    found = verdicts(owner_engine)[Invariant.AUDIT]
    assert found.examples == ("event 2 was changed",)
