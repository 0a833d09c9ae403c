"""Storage commitment: the requests that were sent, and what a report changes.

A request is stored before it is sent: its report may arrive, in another process, before the worker
has received the response. A report settles its delivery whatever the worker is doing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from db.delivery import claims, transitions
from db.enums import DeliveryState, Proof
from db.models import CommitmentRequest, Delivery, DeliveryObject, ReportObjectRow, Revision
from db.session import unit_of_work
from db.states import lock_revision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from core.commitment import CommitmentReport
    from db.delivery.claims import DeliveryClaim

# PS3.3 C.14.1.1: failure reasons that remain when the same bytes are sent again.
_FINAL_REASONS: Final = {
    0x0119: "class and instance in conflict",
    0x0122: "referenced SOP class not supported",
}


def open_request(
    session: Session,
    claim: DeliveryClaim,
    transaction_uid: str,
    *,
    now: datetime,
    statuses: Mapping[str, int],
) -> bool:
    """Record that everything is stored and that commitment is about to be requested.

    Parameters
    ----------
    session : Session
    claim : DeliveryClaim
    transaction_uid : str
        Of the N-ACTION; never used before.
    now : datetime
    statuses : mapping
        C-STORE status by SOP Instance UID; empty if an earlier attempt stored the objects.

    Returns
    -------
    bool
        False when the claim is stale; nothing was changed.
    """
    delivery = claims.hold(session, claim)
    if delivery is None:
        return False
    delivery.stored_at = delivery.stored_at or now
    if statuses:
        transitions.store_statuses(session, delivery.id, statuses)
    session.add(
        CommitmentRequest(
            transaction_uid=transaction_uid, delivery_id=delivery.id, requested_at=now
        )
    )
    return True


def await_report(
    session: Session,
    claim: DeliveryClaim,
    transaction_uid: str,
    *,
    now: datetime,
    timeout_s: float,
) -> bool:
    """Let the delivery wait for the report; without one, commitment is requested again.

    Parameters
    ----------
    session : Session
    claim : DeliveryClaim
    transaction_uid : str
        Of the N-ACTION that the archive accepted.
    now : datetime
    timeout_s : float
        Time until the next request.

    Returns
    -------
    bool
        False when the claim is stale; nothing was changed. True also when the report has arrived
        and settled the delivery meanwhile.
    """
    request = session.get(CommitmentRequest, transaction_uid, populate_existing=True)
    if request is not None and request.answered_at is not None:
        return True
    delivery = claims.hold(session, claim)
    if delivery is None:
        return False
    transitions.postpone_by(
        session,
        delivery,
        max(timeout_s, transitions.backoff_s(delivery.attempt)),
        now=now,
        error="storage commitment requested, no report yet",
        status=None,
    )
    return True


def settle(engine: Engine, report: CommitmentReport) -> bool:
    """Record a report in a transaction of its own; see `record_report`.

    Raises
    ------
    Unavailable
        The database does not respond.
    """
    with unit_of_work(engine) as session:
        return record_report(session, report, now=datetime.now(UTC))


def record_report(session: Session, report: CommitmentReport, *, now: datetime) -> bool:
    """Settle a delivery by the archive's report: delivered, postponed or parked.

    A report that repeats an earlier one, or arrives after its delivery was settled, changes
    nothing.

    Returns
    -------
    bool
        False if no request has the Transaction UID of the report.
    """
    found = session.execute(
        select(Delivery.id, Delivery.revision_id)
        .join(CommitmentRequest, CommitmentRequest.delivery_id == Delivery.id)
        .where(CommitmentRequest.transaction_uid == report.transaction_uid)
    ).one_or_none()
    if found is None:
        return False
    # The revision is locked first, as everywhere: two destinations may finish at once.
    revision = lock_revision(session, found.revision_id)
    delivery = transitions.lock_delivery(session, found.id)
    request = session.get(CommitmentRequest, report.transaction_uid, populate_existing=True)
    if revision is None or delivery is None or request is None:
        return False
    if request.answered_at is not None:
        return True
    request.answered_at = now
    request.failed = dict(report.failed)
    expected = set(
        session.scalars(
            select(ReportObjectRow.sop_instance_uid)
            .join(DeliveryObject, DeliveryObject.report_object_id == ReportObjectRow.id)
            .where(DeliveryObject.delivery_id == delivery.id)
        )
    )
    missing = expected - report.committed
    if not missing and delivery.proof is not Proof.COMMITMENT:
        delivery.token += 1  # makes the claim of a worker stale
        transitions.deliver(session, revision, delivery, now=now, proof=Proof.COMMITMENT)
    elif missing and delivery.state in (DeliveryState.PENDING, DeliveryState.SENDING):
        delivery.token += 1
        _store_again(session, revision, delivery, report, missing, now)
    return True


def _store_again(
    session: Session,
    revision: Revision,
    delivery: Delivery,
    report: CommitmentReport,
    missing: set[str],
    now: datetime,
) -> None:
    """Send again what the archive did not commit to, unless it never will."""
    reasons = {report.failed.get(uid) for uid in missing}
    delivery.stored_at = None
    final = sorted(reason for reason in reasons if reason in _FINAL_REASONS)
    if final:
        error = f"storage commitment refused: {_FINAL_REASONS[final[0]]}"
        transitions.park(session, revision, delivery, now=now, error=error, status=final[0])
    else:
        known = sorted(reason for reason in reasons if reason is not None)
        transitions.postpone(
            session,
            revision,
            delivery,
            now=now,
            error=f"storage commitment failed for {len(missing)} objects",
            status=known[0] if known else None,
        )
