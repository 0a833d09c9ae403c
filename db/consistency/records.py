"""What must hold among the rows: outcomes, contents, leases, waiting, notifications, audit."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, case, exists, func, not_, or_, select

from db import audit
from db.clock import current_time
from db.consistency.verdict import Invariant, Verdict
from db.delivery import transitions
from db.enums import DeliveryState, Proof, RevisionState
from db.models import (
    AuditEvent,
    Delivery,
    DeliveryObject,
    GradeRow,
    OutboxRow,
    ReportObjectRow,
    Revision,
)
from db.receiving.closing import quiet_since
from db.session import unit_of_work

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from core.settings import Settings

_GRADED: Final = (RevisionState.GRADED, RevisionState.DELIVERED, RevisionState.COMMITTED)
_RESULTS: Final = (RevisionState.GRADED, RevisionState.REJECTED, RevisionState.FAILED)
"""States, and audit events, with which the grading of a revision ends."""


def check_records(engine: Engine, settings: Settings, *, overdue_s: float) -> Iterator[Verdict]:
    """Check the rows, each invariant in a transaction of its own.

    Parameters
    ----------
    engine : Engine
    settings : Settings
        Quiet period and longest opening of a study.
    overdue_s : float
        What should have happened, and has not for this time, is a violation.

    Raises
    ------
    Unavailable
        The database does not respond.
    """
    with unit_of_work(engine, read_only=True) as session:
        yield _check_outcomes(session)
    with unit_of_work(engine, read_only=True) as session:
        yield _check_content(session)
    with unit_of_work(engine, read_only=True) as session:
        yield _check_leases(session, current_time(session) - timedelta(seconds=overdue_s))
    with unit_of_work(engine, read_only=True) as session:
        yield _check_waiting(session, settings, current_time(session), overdue_s)
    with unit_of_work(engine, read_only=True) as session:
        yield _check_outbox(session, current_time(session) - timedelta(seconds=overdue_s))
    with unit_of_work(engine, read_only=True) as session:
        chain = audit.verify(session)
        yield Verdict.of(Invariant.AUDIT, chain.checked, [] if chain.ok else [chain.problem])


def _check_outcomes(session: Session) -> Verdict:
    has_grade = exists().where(GradeRow.revision_id == Revision.id)
    has_report = exists().where(ReportObjectRow.revision_id == Revision.id)
    of_revision = exists().where(Delivery.revision_id == Revision.id)
    unfinished = of_revision.where(Delivery.state != DeliveryState.DELIVERED)
    uncommitted = of_revision.where(Delivery.proof.not_in((Proof.COMMITMENT, Proof.HL7_ACK)))
    is_graded = Revision.state.in_(_GRADED)
    wrong = {
        "graded, without a grade": and_(is_graded, not_(has_grade)),
        "graded, without a report": and_(is_graded, not_(has_report)),
        "not graded, with a grade": and_(not_(is_graded), has_grade),
        "without a result, with deliveries": and_(
            Revision.state.not_in((*_GRADED, RevisionState.REJECTED)), of_revision
        ),
        "graded, every delivery done, not delivered": and_(
            Revision.state == RevisionState.GRADED, not_(unfinished)
        ),
        "delivered, a delivery not done": and_(
            Revision.state.in_((RevisionState.DELIVERED, RevisionState.COMMITTED)), unfinished
        ),
        "committed, a delivery without commitment": and_(
            Revision.state == RevisionState.COMMITTED, uncommitted
        ),
    }
    found = [
        f"revision {revision_id}: {what}"
        for what, condition in wrong.items()
        for revision_id in session.scalars(select(Revision.id).where(condition))
    ]
    results = select(AuditEvent.revision_id).where(AuditEvent.event.in_(_RESULTS))
    twice = results.group_by(AuditEvent.revision_id).having(func.count() > 1)
    found += [f"revision {each}: has more than one result" for each in session.scalars(twice)]
    without_event = select(Revision.id).where(
        Revision.state.in_((*_GRADED, RevisionState.REJECTED, RevisionState.FAILED)),
        Revision.id.not_in(results.where(AuditEvent.revision_id.is_not(None))),
    )
    found += [f"revision {each}: result not audited" for each in session.scalars(without_event)]
    return Verdict.of(Invariant.OUTCOMES, _count(session, Revision), found)


def _check_content(session: Session) -> Verdict:
    changed = (
        select(ReportObjectRow.sop_instance_uid)
        .group_by(ReportObjectRow.sop_instance_uid)
        .having(func.count(ReportObjectRow.sha256.distinct()) > 1)
    )
    found = [f"object {uid}: has several contents" for uid in session.scalars(changed)]
    of_another = (
        select(Delivery.id)
        .join(DeliveryObject, DeliveryObject.delivery_id == Delivery.id)
        .join(ReportObjectRow, ReportObjectRow.id == DeliveryObject.report_object_id)
        .where(ReportObjectRow.revision_id != Delivery.revision_id)
        .distinct()
    )
    found += [
        f"delivery {each}: objects of another revision" for each in session.scalars(of_another)
    ]
    empty = select(Delivery.id).where(
        not_(exists().where(DeliveryObject.delivery_id == Delivery.id))
    )
    found += [f"delivery {each}: has no objects" for each in session.scalars(empty)]
    return Verdict.of(Invariant.REPORT_CONTENT, _count(session, ReportObjectRow), found)


def _check_leases(session: Session, before: datetime) -> Verdict:
    held: dict[str, tuple[Any, Any]] = {
        "revision": (Revision, RevisionState.PROCESSING),
        "delivery": (Delivery, DeliveryState.SENDING),
    }
    checked, found = 0, []
    for what, (table, state) in held.items():
        rows = session.execute(
            select(table.id, table.lease_until).where(table.state == state)
        ).all()
        checked += len(rows)
        found += [
            f"{what} {each}: lease ended {until:%Y-%m-%d %H:%M:%S}"
            if until
            else f"{what} {each}: none"
            for each, until in rows
            if until is None or until < before
        ]
    return Verdict.of(Invariant.LEASES, checked, found)


def _check_waiting(
    session: Session, settings: Settings, now: datetime, overdue_s: float
) -> Verdict:
    """Nothing waits without a reason: to be closed, for a worker, for a person."""
    before = now - timedelta(seconds=overdue_s)
    open_too_long = or_(
        Revision.last_received_at <= quiet_since(before, settings.quiet_period_s),
        Revision.opened_at <= before - timedelta(seconds=settings.max_open_s),
    )
    wrong: dict[str, Any] = {
        "quiet, and not closed": and_(Revision.state == RevisionState.RECEIVING, open_too_long),
        "closed, and not queued": and_(
            Revision.state == RevisionState.CLOSED, Revision.state_since < before
        ),
        "failed, without a reason": and_(
            Revision.state == RevisionState.FAILED, Revision.reason.is_(None)
        ),
    }
    if not _grading_goes_on(session, before):
        wrong["waits for a worker, and none takes a study"] = _is_due(
            Revision, RevisionState.QUEUED, Revision.state_since, before
        )
    found = [
        f"revision {each}: {what}"
        for what, condition in wrong.items()
        for each in session.scalars(select(Revision.id).where(condition))
    ]
    wrong = {
        "parked, without a reason": and_(
            Delivery.state == DeliveryState.PARKED, Delivery.last_error.is_(None)
        ),
        "postponed for more than the longest interval": and_(
            Delivery.state == DeliveryState.PENDING,
            Delivery.not_before
            > now
            + timedelta(seconds=max(transitions.LONGEST_RETRY_S, settings.commitment_timeout_s)),
        ),
    }
    if not _delivering_goes_on(session, before):
        wrong["waits for a worker, and none delivers"] = _is_due(
            Delivery, DeliveryState.PENDING, Delivery.waiting_since, before
        )
    found += [
        f"delivery {each}: {what}"
        for what, condition in wrong.items()
        for each in session.scalars(select(Delivery.id).where(condition))
    ]
    waiting = (RevisionState.DELIVERED, RevisionState.COMMITTED, RevisionState.REJECTED)
    checked = _count(session, Revision, Revision.state.not_in(waiting))
    checked += _count(session, Delivery, Delivery.state != DeliveryState.DELIVERED)
    return Verdict.of(Invariant.WAITING, checked, found)


def _is_due(table: Any, state: Any, since: Any, before: datetime) -> Any:
    """Whether a row of the state could have been taken up before a time."""
    due = case((table.not_before > since, table.not_before), else_=since)
    return and_(table.state == state, due < before)


def _grading_goes_on(session: Session, before: datetime) -> bool:
    """Whether a worker holds a revision, or a grading has ended since: others wait their turn."""
    ended = Revision.state.in_((*_GRADED, RevisionState.REJECTED, RevisionState.FAILED))
    recent = or_(
        Revision.state == RevisionState.PROCESSING, and_(ended, Revision.state_since >= before)
    )
    return session.scalar(select(Revision.id).where(recent).limit(1)) is not None


def _delivering_goes_on(session: Session, before: datetime) -> bool:
    recent = or_(Delivery.state == DeliveryState.SENDING, Delivery.delivered_at >= before)
    return session.scalar(select(Delivery.id).where(recent).limit(1)) is not None


def _check_outbox(session: Session, before: datetime) -> Verdict:
    """Exactly what waits for a worker has a row, and none is overdue."""
    found = []
    for what, table, state, target in (
        ("revision", Revision, RevisionState.QUEUED, OutboxRow.revision_id),
        ("delivery", Delivery, DeliveryState.PENDING, OutboxRow.delivery_id),
    ):
        silent = select(table.id).where(
            table.state == state, not_(exists().where(target == table.id))
        )
        found += [f"{what} {each}: workers are never notified" for each in session.scalars(silent)]
        done = select(table.id).join(OutboxRow, target == table.id).where(table.state != state)
        found += [f"{what} {each}: notified of in vain" for each in session.scalars(done)]
    overdue = select(OutboxRow.id).where(OutboxRow.notify_at < before)
    found += [f"notification {each}: overdue" for each in session.scalars(overdue)]
    return Verdict.of(Invariant.OUTBOX, _count(session, OutboxRow), found)


def _count(session: Session, table: Any, *where: Any) -> int:
    return session.scalar(select(func.count()).select_from(table).where(*where)) or 0
