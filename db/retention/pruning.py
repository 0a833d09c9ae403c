"""One pass of retention: what is due is removed, in small transactions, oldest first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import delete, func, select

from db import audit
from db.clock import current_time
from db.models import (
    CommitmentRequest,
    FileRemoval,
    Instance,
    QuarantinedInstance,
    RefusalCount,
    ReportObjectRow,
    Revision,
    StageTimingRow,
)
from db.retention import policy, removals
from db.retention.removals import Amount
from db.session import unit_of_work

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import CursorResult, Engine
    from sqlalchemy.orm import Session

    from db.retention.policy import Policy

STUDIES_PER_PASS: Final = 50
FILES_PER_PASS: Final = 10_000
ROWS_PER_PASS: Final = 2_000
_MORE_FOR_SPACE: Final = 10
"""Portions of a pass while space is short."""


@dataclass(slots=True)
class Pruned:
    """What one pass has decided and removed, or would."""

    images: Amount = field(default_factory=Amount)
    studies: int = 0
    """Whose images these are."""
    reports: Amount = field(default_factory=Amount)
    quarantine: Amount = field(default_factory=Amount)
    details: int = 0
    """Rows."""
    removed: Amount = field(default_factory=Amount)
    """Files that are gone, also those of earlier passes."""
    waiting: Amount = field(default_factory=Amount)
    """Files that could not be removed, or that are left for the next pass."""


def prune(
    engine: Engine,
    rules: Policy,
    *,
    is_short_of_space: Callable[[], bool] = lambda: False,
    n_studies: int = STUDIES_PER_PASS,
    now: datetime | None = None,
) -> Pruned:
    """Remove what is due, at most `n_studies` of each kind.

    Parameters
    ----------
    engine : Engine
    rules : Policy
    is_short_of_space : callable
        While it returns true, images of studies that were finished a day ago are removed too.
    n_studies : int
    now : datetime, optional
        By default the database's time.

    Raises
    ------
    Unavailable
        The database does not respond; what was decided before stays decided.
    """
    pruned = Pruned()
    if now is None:
        with unit_of_work(engine, read_only=True) as session:
            now = current_time(session)
    if rules.images is not None:
        _prune_images(engine, pruned, now - rules.images, now, "age", n_studies)
    if rules.reports is not None:
        _prune_reports(engine, pruned, now - rules.reports, now, n_studies)
    if rules.quarantine is not None:
        _prune_quarantine(engine, pruned, now - rules.quarantine, now, n_studies)
    if rules.details is not None:
        pruned.details = _prune_details(engine, now - rules.details, now)
    pruned.removed = removals.remove_listed(engine, limit=FILES_PER_PASS)
    for _ in range(_MORE_FOR_SPACE if rules.images is not None else 0):
        before = pruned.studies
        if not is_short_of_space():
            break
        _prune_images(engine, pruned, now - policy.LEAST_AGE, now, "disk", n_studies)
        pruned.removed += removals.remove_listed(engine, limit=FILES_PER_PASS)
        if pruned.studies == before:
            break
    with unit_of_work(engine, read_only=True) as session:
        pruned.waiting = count_listed(session)
    return pruned


def preview(engine: Engine, rules: Policy) -> Pruned:
    """Say what is due, without a limit, and change nothing."""
    pruned = Pruned()
    with unit_of_work(engine, read_only=True) as session:
        now = current_time(session)
        if rules.images is not None:
            studies = policy.studies_with_removable_images(now - rules.images).order_by(None)
            pruned.studies = _count(session, studies)
            pruned.images = _amount(
                session, Instance, Instance.study_uid.in_(studies), Instance.removed_at.is_(None)
            )
        if rules.reports is not None:
            due = policy.revisions_with_removable_reports(now - rules.reports).order_by(None)
            revisions = due.with_only_columns(Revision.id)
            pruned.reports = _amount(
                session, ReportObjectRow, ReportObjectRow.revision_id.in_(revisions)
            )
        if rules.quarantine is not None:
            rows = policy.removable_quarantine(now - rules.quarantine).order_by(None)
            ids = rows.with_only_columns(QuarantinedInstance.id)
            pruned.quarantine = _amount(
                session, QuarantinedInstance, QuarantinedInstance.id.in_(ids)
            )
        if rules.details is not None:
            cutoff = now - rules.details
            pruned.details = sum(_count(session, rows) for _, rows in _old_details(cutoff))
        pruned.waiting = count_listed(session)
    return pruned


def _prune_images(
    engine: Engine, pruned: Pruned, cutoff: datetime, now: datetime, why: str, limit: int
) -> None:
    with unit_of_work(engine, read_only=True) as session:
        due = session.scalars(policy.studies_with_removable_images(cutoff).limit(limit)).all()
    for study_uid in due:
        with unit_of_work(engine) as session:
            amount = removals.decide_images(session, study_uid, cutoff=cutoff, now=now, why=why)
        pruned.images += amount
        pruned.studies += bool(amount.files)


def _prune_reports(
    engine: Engine, pruned: Pruned, cutoff: datetime, now: datetime, limit: int
) -> None:
    with unit_of_work(engine, read_only=True) as session:
        due = session.execute(policy.revisions_with_removable_reports(cutoff).limit(limit)).all()
    for revision_id, study_uid in due:
        with unit_of_work(engine) as session:
            pruned.reports += removals.decide_report(
                session, revision_id, study_uid, cutoff=cutoff, now=now
            )


def _prune_quarantine(
    engine: Engine, pruned: Pruned, cutoff: datetime, now: datetime, limit: int
) -> None:
    with unit_of_work(engine, read_only=True) as session:
        rows = session.scalars(policy.removable_quarantine(cutoff).limit(limit)).all()
    for study_uid in sorted({row.study_uid for row in rows}):
        with unit_of_work(engine) as session:
            pruned.quarantine += removals.decide_quarantine(
                session, study_uid, cutoff=cutoff, now=now
            )


def _old_details(cutoff: datetime) -> tuple[tuple[Any, Any], ...]:
    """Select the keys of rows that are of no use any more, by the column that they are in."""
    has_timings = (
        select(StageTimingRow.revision_id).where(StageTimingRow.revision_id == Revision.id).exists()
    )
    return (
        (
            StageTimingRow.revision_id,
            select(Revision.id).where(Revision.opened_at <= cutoff, has_timings),
        ),
        (
            CommitmentRequest.transaction_uid,
            select(CommitmentRequest.transaction_uid).where(
                CommitmentRequest.requested_at <= cutoff
            ),
        ),
        (RefusalCount.id, select(RefusalCount.id).where(RefusalCount.last_at <= cutoff)),
    )


def _prune_details(engine: Engine, cutoff: datetime, now: datetime) -> int:
    removed: dict[str, int] = {}
    for column, rows in _old_details(cutoff):
        with unit_of_work(engine, read_only=True) as session:
            keys = session.scalars(rows.limit(ROWS_PER_PASS)).all()
        if not keys:
            continue
        with unit_of_work(engine) as session:
            statement = delete(column.class_).where(column.in_(keys))
            deleted = cast("CursorResult[Any]", session.connection().execute(statement))
            removed[column.class_.__tablename__] = deleted.rowcount
    if removed:
        with unit_of_work(engine) as session:
            audit.append(session, "details-removed", detail=removed, now=now)
    return sum(removed.values())


def _count(session: Session, rows: Any) -> int:
    return session.scalar(select(func.count()).select_from(rows.subquery())) or 0


def _amount(session: Session, table: Any, *where: Any) -> Amount:
    files, size = session.execute(
        select(func.count(), func.coalesce(func.sum(table.size_bytes), 0)).where(*where)
    ).one()
    return Amount(files, int(size))


def count_listed(session: Session) -> Amount:
    """Count the files whose removal is decided and not done yet."""
    return _amount(session, FileRemoval, FileRemoval.id.is_not(None))
