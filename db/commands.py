"""What an operator can change from the command line: grade a study again, rearm deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from core.errors import EpvsError
from db import audit
from db.delivery import order, transitions
from db.enums import DeliveryState, RevisionState
from db.grading.contents import FILES_REMOVED, count_removed
from db.models import Delivery, Revision
from db.queries import find_study
from db.receiving.closing import queue
from db.states import ALLOWED, move, open_revision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session

OVERTAKEN: Final = "the destination has the report of a newer revision"
"""`last_error` of a delivery that stays parked."""

_FINISHED: Final = {state for state, successors in ALLOWED.items() if not successors} | {
    RevisionState.GRADED,
    RevisionState.DELIVERED,
}


def reprocess(session: Session, study_uid: str, *, now: datetime) -> str:
    """Grade a finished study again, as a new revision with the same instances.

    Returns
    -------
    str
        Id of the new revision, which is queued.

    Raises
    ------
    EpvsError
        There is no such study, its latest revision is not finished, or its files were removed.
    """
    find_study(session, study_uid, lock=True)
    latest = session.scalars(
        select(Revision).where(Revision.study_uid == study_uid).order_by(Revision.number.desc())
    ).first()
    if latest is None or latest.state not in _FINISHED:
        state = latest.state if latest else "without instances"
        raise EpvsError(
            f"Study {study_uid} is still {state}.", "Wait until it is finished, then try again."
        )
    if n_removed := count_removed(session, latest):
        raise EpvsError(
            f"The files of {n_removed} instances of study {study_uid} were removed "
            f"({FILES_REMOVED}).",
            "Send the whole study again, then try again.",
        )
    revision = open_revision(
        session,
        study_uid,
        latest.number + 1,
        now=now,
        detail={"reason": "reprocess"},
        priority=latest.priority,
    )
    move(session, revision, RevisionState.CLOSED, now=now, detail={"new_instances": 0})
    queue(session, revision, now=now)
    return revision.id


def rearm_deliveries(session: Session, destination: str | None = None, *, now: datetime) -> int:
    """Let parked deliveries be attempted again, unless retention has removed their report.

    One whose destination has the report of a newer revision stays parked: it would arrive last.

    Parameters
    ----------
    session : Session
    destination : str, optional
        Name of the destination; by default all.
    now : datetime

    Returns
    -------
    int
        Number of deliveries that were rearmed.
    """
    order.lock_order(session)
    n_rearmed = 0
    parked = _lock_parked(session, Revision.report_removed_at.is_(None), destination=destination)
    for delivery, revision in parked:
        if order.is_overtaken(session, delivery, revision):
            delivery.last_error = OVERTAKEN
        else:
            transitions.rearm(session, revision, delivery, now=now)
            n_rearmed += 1
    return n_rearmed


def abandon(
    session: Session,
    *,
    study_uid: str | None = None,
    destination: str | None = None,
    operator: str,
    now: datetime,
) -> int:
    """Accept that failed studies stay failed and parked deliveries stay parked.

    Retention may then remove their files.

    Parameters
    ----------
    session : Session
    study_uid : str, optional
        The failed revisions and parked deliveries of this study.
    destination : str, optional
        Parked deliveries to this destination alone, of the study or of all.
    operator : str
        Who decided.
    now : datetime

    Returns
    -------
    int
        Number of revisions and deliveries.
    """
    of_study = [Revision.study_uid == study_uid] if study_uid else []
    deliveries = _lock_parked(
        session, Delivery.abandoned_at.is_(None), *of_study, destination=destination
    )
    for delivery, revision in deliveries:
        delivery.abandoned_at = now
        detail = {"destination": delivery.destination, "operator": operator}
        _append(session, "delivery-abandoned", revision, detail, now)
    failed: Sequence[Revision] = ()
    if study_uid and not destination:
        failed = session.scalars(
            select(Revision)
            .where(
                Revision.study_uid == study_uid,
                Revision.state == RevisionState.FAILED,
                Revision.abandoned_at.is_(None),
            )
            .order_by(Revision.number)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        ).all()
    for revision in failed:
        revision.abandoned_at = now
        _append(session, "failure-abandoned", revision, {"operator": operator}, now)
    return len(deliveries) + len(failed)


def _lock_parked(
    session: Session, *where: ColumnElement[bool], destination: str | None
) -> Sequence[Row[Delivery, Revision]]:
    """Lock parked deliveries, to one destination or to all."""
    if destination:
        where = (*where, Delivery.destination == destination)
    return session.execute(
        select(Delivery, Revision)
        .join(Revision, Revision.id == Delivery.revision_id)
        .where(Delivery.state == DeliveryState.PARKED, *where)
        .order_by(Delivery.id)
        .with_for_update(of=Delivery, key_share=True)
        .execution_options(populate_existing=True)
    ).all()


def _append(
    session: Session, event: str, revision: Revision, detail: dict[str, str], now: datetime
) -> None:
    audit.append(
        session,
        event,
        study_uid=revision.study_uid,
        revision_id=revision.id,
        detail=detail,
        now=now,
    )
