"""Storage commitment: the requests that were sent, and what a report changes.

A request is stored before it is sent: its report may arrive, in another process, before the worker
has received the response. A report settles its delivery whatever the worker is doing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from core.commitment import ReportRefusal
from core.destinations import DicomDestination
from core.text import printable
from db import audit
from db.clock import current_time
from db.delivery import claims, transitions
from db.enums import DeliveryState, Proof
from db.models import CommitmentRequest, Delivery, DeliveryObject, ReportObjectRow, Revision
from db.session import unit_of_work
from db.states import lock_revision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from core.commitment import CommitmentReport, Reporter
    from core.destinations import Destination
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


def settle(
    engine: Engine,
    report: CommitmentReport,
    reporter: Reporter,
    find_destination: Callable[[str], Destination | None],
) -> ReportRefusal | None:
    """Record a report in a transaction of its own, if its reporter may make it.

    Parameters
    ----------
    engine : Engine
    report : CommitmentReport
    reporter : Reporter
    find_destination : callable
        Returns the destination with a name, or None if it is no longer configured.

    Returns
    -------
    ReportRefusal or None
        Why nothing was recorded, if so; see `record_report` for what is.

    Raises
    ------
    Unavailable
        The database does not respond, or the name server.
    """
    with unit_of_work(engine, read_only=True) as session:
        name = session.scalar(
            select(Delivery.destination)
            .join(CommitmentRequest, CommitmentRequest.delivery_id == Delivery.id)
            .where(CommitmentRequest.transaction_uid == report.transaction_uid)
        )
    if name is None:
        return ReportRefusal.UNKNOWN_TRANSACTION
    destination = find_destination(name)
    # Outside of a transaction: it may ask the name server.
    if not isinstance(destination, DicomDestination) or not reporter.may_report_for(destination):
        return ReportRefusal.NOT_AUTHORISED
    with unit_of_work(engine) as session:
        record_report(session, report, reporter, now=current_time(session))
    return None


def record_report(
    session: Session, report: CommitmentReport, reporter: Reporter, *, now: datetime
) -> None:
    """Settle a delivery by the archive's report: delivered, postponed or parked.

    A report of a loss also counts after the archive's C-FIND showed the objects: they are sent
    again; the next time the delivery is parked. A report that repeats an earlier one changes
    nothing, and neither does one on an unknown transaction.
    """
    found = session.execute(
        select(Delivery.id, Delivery.revision_id)
        .join(CommitmentRequest, CommitmentRequest.delivery_id == Delivery.id)
        .where(CommitmentRequest.transaction_uid == report.transaction_uid)
    ).one_or_none()
    if found is None:
        return
    # The revision is locked first, as everywhere: two destinations may finish at once.
    revision = lock_revision(session, found.revision_id)
    delivery = transitions.lock_delivery(session, found.id)
    request = session.get(CommitmentRequest, report.transaction_uid, populate_existing=True)
    if revision is None or delivery is None or request is None or request.answered_at is not None:
        return
    request.answered_at = now
    request.failed = dict(report.failed)
    request.reporter_ae = printable(reporter.ae_title)
    request.reporter_address = reporter.address
    request.reporter_certificate = ", ".join(sorted(map(printable, reporter.certificate_names)))
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
    elif missing and delivery.proof is not Proof.COMMITMENT and revision.report_removed_at is None:
        _deliver_again(session, revision, delivery, report, missing, now)
    _append_event(session, report, request, revision, delivery)


def _append_event(
    session: Session,
    report: CommitmentReport,
    request: CommitmentRequest,
    revision: Revision,
    delivery: Delivery,
) -> None:
    audit.append(
        session,
        "commitment-report",
        study_uid=revision.study_uid,
        revision_id=revision.id,
        detail={
            "destination": delivery.destination,
            "transaction_uid": request.transaction_uid,
            "committed": len(report.committed),
            "failed": len(report.failed),
            "reporter_ae": request.reporter_ae,
            "reporter_address": request.reporter_address,
            "reporter_certificate": request.reporter_certificate,
        },
        now=request.answered_at,
    )


def _deliver_again(
    session: Session,
    revision: Revision,
    delivery: Delivery,
    report: CommitmentReport,
    missing: set[str],
    now: datetime,
) -> None:
    """Take back a proof by C-FIND; send again, unless the archive has contradicted it before."""
    if delivery.state is not DeliveryState.DELIVERED:
        return  # parked: a person decides
    earlier = select(CommitmentRequest.transaction_uid).where(
        CommitmentRequest.delivery_id == delivery.id,
        CommitmentRequest.transaction_uid != report.transaction_uid,
        CommitmentRequest.answered_at > delivery.delivered_at,
    )
    delivery.proof = None
    if session.scalars(earlier.limit(1)).first() is None:
        transitions.rearm(session, revision, delivery, now=now)
        return
    error = (
        f"the archive lacks {len(missing)} objects that its C-FIND had shown, for the second time"
    )
    status = next((report.failed[uid] for uid in sorted(missing) if uid in report.failed), None)
    transitions.park(session, revision, delivery, now=now, error=error, status=status)


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
