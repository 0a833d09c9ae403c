"""Storage commitment: what was asked of which destination, and what its reports change.

The request is a row before it is sent: a report may arrive, in another process, before the worker
knows that its request was taken. A report settles its delivery whatever the worker is doing.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from core.commitment import CommitmentReport, read_commitment_report
from core.errors import Unavailable
from db.delivery import deliveries
from db.enums import DeliveryState
from db.models import CommitmentRequest, Delivery, DeliveryObject, ReportObjectRow, Revision
from db.session import unit_of_work
from db.states import lock_revision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom.dataset import Dataset
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from db.delivery.deliveries import DeliveryClaim

log = logging.getLogger(__name__)

# PS3.3 C.14.1.1: reasons that the same bytes would meet again.
_FINAL_REASONS: Final = {
    0x0119: "class and instance in conflict",
    0x0122: "referenced SOP class not supported",
}


class Reception(Enum):
    """What became of a report."""

    TAKEN = auto()
    """Its delivery is settled by it, now or before."""
    UNKNOWN = auto()
    """Nothing was asked under its transaction UID."""


def take_report(engine: Engine, event_information: Dataset) -> int:
    """Take the Event Information of an N-EVENT-REPORT, on whatever association it came.

    Returns
    -------
    int
        DIMSE status of the response (PS3.7 C.5): success, invalid argument (0x0115) for what
        answers no request of ours, or processing failure (0x0110) while the database is away.
    """
    try:
        report = read_commitment_report(event_information)
        with unit_of_work(engine) as session:
            reception = record_report(session, report, now=datetime.now(UTC))
    except ValueError as error:
        log.warning("commitment report refused: %s", error)
        return 0x0115
    except Unavailable as error:
        log.warning("commitment report not taken: %s", error)
        return 0x0110
    if reception is Reception.UNKNOWN:
        log.warning("commitment report on a transaction that is not ours")
        return 0x0115
    log.info(
        "commitment report transaction=%s committed=%d failed=%d",
        report.transaction_uid,
        len(report.committed),
        len(report.failed),
    )
    return 0x0000


def open_request(
    session: Session,
    claim: DeliveryClaim,
    transaction_uid: str,
    *,
    now: datetime,
    statuses: Mapping[str, int],
) -> bool:
    """Note that everything is stored, and that its commitment is about to be asked for.

    Parameters
    ----------
    session : Session
    claim : DeliveryClaim
    transaction_uid : str
        Of the N-ACTION; never used before.
    now : datetime
    statuses : mapping
        C-STORE status of each SOP Instance UID; empty where they were stored by an attempt before.

    Returns
    -------
    bool
        False when the claim is stale; nothing was changed.
    """
    delivery = deliveries.hold(session, claim)
    if delivery is None:
        return False
    delivery.stored_at = delivery.stored_at or now
    if statuses:
        deliveries.store_statuses(session, delivery.id, statuses)
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
    patience_s: float,
) -> bool:
    """Let the delivery wait for the report on this request, and be asked for again without one.

    Returns
    -------
    bool
        False when the claim is stale; nothing was changed. A report that has come meanwhile
        settled the delivery, and is no reason for False.
    """
    request = session.get(CommitmentRequest, transaction_uid, populate_existing=True)
    if request is not None and request.answered_at is not None:
        return True
    delivery = deliveries.hold(session, claim)
    if delivery is None:
        return False
    deliveries.wait_again(
        session,
        delivery,
        now=now,
        delay_s=max(patience_s, deliveries.backoff_s(delivery.attempt)),
        error="storage commitment asked for, no report yet",
        status=None,
    )
    return True


def record_report(session: Session, report: CommitmentReport, *, now: datetime) -> Reception:
    """Let a report settle its delivery: committed, to be sent again, or waiting for a person.

    A report that repeats one, or comes after its delivery was settled, changes nothing.
    """
    found = session.execute(
        select(Delivery.id, Delivery.revision_id)
        .join(CommitmentRequest, CommitmentRequest.delivery_id == Delivery.id)
        .where(CommitmentRequest.transaction_uid == report.transaction_uid)
    ).one_or_none()
    if found is None:
        return Reception.UNKNOWN
    # The revision first, as everywhere: two destinations may finish at once.
    revision = lock_revision(session, found.revision_id)
    delivery = deliveries.lock(session, found.id)
    request = session.get(CommitmentRequest, report.transaction_uid, populate_existing=True)
    if revision is None or delivery is None or request is None:
        return Reception.UNKNOWN
    if request.answered_at is not None:
        return Reception.TAKEN
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
    if not missing and delivery.proof != "commitment":
        delivery.token += 1  # whoever holds a claim is overtaken by this
        deliveries.complete(session, revision, delivery, now=now, proof="commitment")
    elif missing and delivery.state in (DeliveryState.PENDING, DeliveryState.SENDING):
        delivery.token += 1
        _store_again(session, revision, delivery, report, missing, now)
    return Reception.TAKEN


def _store_again(
    session: Session,
    revision: Revision,
    delivery: Delivery,
    report: CommitmentReport,
    missing: set[str],
    now: datetime,
) -> None:
    reasons = {report.failed.get(uid) for uid in missing}
    delivery.stored_at = None  # send again what the archive does not answer for
    final = sorted(reason for reason in reasons if reason in _FINAL_REASONS)
    if final:
        error = f"storage commitment refused: {_FINAL_REASONS[final[0]]}"
        deliveries.give_up(session, revision, delivery, now=now, error=error, status=final[0])
    else:
        known = sorted(reason for reason in reasons if reason is not None)
        deliveries.wait_or_give_up(
            session,
            revision,
            delivery,
            now=now,
            error=f"storage commitment failed for {len(missing)} objects",
            status=known[0] if known else None,
        )
