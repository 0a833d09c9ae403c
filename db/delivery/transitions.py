"""Delivery, in the database: the changes of a delivery whose row the caller has locked.

A worker's claim (`db.delivery.claims`), a storage commitment report (`db.delivery.commitments`) and
an operator (`db.commands`) lead to the same four changes: delivered, postponed, parked, rearmed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, update

from db import audit, outbox
from db.enums import DeliveryState, Proof, RevisionState
from db.models import Delivery, DeliveryObject, ReportObjectRow
from db.states import move

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from db.models import Revision

FIRST_RETRY_S: Final = 10.0
LONGEST_RETRY_S: Final = 3600.0
LONGEST_UNAVAILABLE_S: Final = 60.0
"""A destination that cannot be reached, or has no resources, is asked this often.
`db.delivery.order` limits how many deliveries do so."""
PARK_AFTER: Final = timedelta(days=7)
"""A delivery that is postponed for this long is parked."""


def lock_delivery(session: Session, delivery_id: str) -> Delivery | None:
    """Read a delivery and lock its row until the transaction ends."""
    return session.scalar(
        select(Delivery)
        .where(Delivery.id == delivery_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def deliver(
    session: Session, revision: Revision, delivery: Delivery, *, now: datetime, proof: Proof
) -> None:
    """Record that the destination has everything.

    With the last delivery a graded revision is delivered; it is committed when every archive gave
    its commitment. A delivery that is delivered already gets the better proof.
    """
    delivery.state = DeliveryState.DELIVERED
    delivery.delivered_at = delivery.delivered_at or now
    delivery.proof, delivery.lease_until = proof, None
    delivery.last_error = delivery.last_status = delivery.not_before = None
    _reached(session, delivery)
    outbox.remove_delivery(session, delivery.id)
    session.flush()
    _record(session, "delivery-done", revision, delivery, now, {"proof": proof})
    _finish(session, revision, now=now)


def postpone(
    session: Session,
    revision: Revision,
    delivery: Delivery,
    *,
    now: datetime,
    error: str,
    status: int | None,
    available: bool = True,
) -> None:
    """Schedule the next attempt after 10 s, 20 s, 40 s …; after seven days, park.

    At most 1 h, or 1 min if the destination was not `available`, so that what waits moves soon
    after it is.
    """
    if now - delivery.waiting_since >= PARK_AFTER:
        park(session, revision, delivery, now=now, error=error, status=status)
    else:
        if available:
            _reached(session, delivery)
            delay_s = backoff_s(delivery.attempt)
        else:
            delivery.unavailable_at = now
            delay_s = min(backoff_s(delivery.attempt), LONGEST_UNAVAILABLE_S)
        postpone_by(session, delivery, delay_s, now=now, error=error, status=status)


def postpone_by(
    session: Session,
    delivery: Delivery,
    delay_s: float,
    *,
    now: datetime,
    error: str,
    status: int | None,
) -> None:
    """Schedule the next attempt `delay_s` seconds from now."""
    delivery.state, delivery.lease_until = DeliveryState.PENDING, None
    delivery.not_before = now + timedelta(seconds=delay_s)
    delivery.last_error, delivery.last_status = error, status
    outbox.remove_delivery(session, delivery.id)
    outbox.put_delivery(session, delivery.id, notify_at=delivery.not_before)
    session.flush()


def park(
    session: Session,
    revision: Revision,
    delivery: Delivery,
    *,
    now: datetime,
    error: str,
    status: int | None,
) -> None:
    """Stop attempting the delivery until an operator rearms it."""
    delivery.state, delivery.lease_until = DeliveryState.PARKED, None
    delivery.unavailable_at = None
    delivery.last_error, delivery.last_status = error, status
    outbox.remove_delivery(session, delivery.id)
    session.flush()
    _record(session, "delivery-parked", revision, delivery, now, {"status": status})


def rearm(session: Session, revision: Revision, delivery: Delivery, *, now: datetime) -> None:
    """Let a parked delivery be attempted again, from the beginning."""
    delivery.state = DeliveryState.PENDING
    delivery.attempt, delivery.waiting_since, delivery.not_before = 0, now, now
    delivery.stored_at = None  # send everything again: the archive may have lost it
    delivery.abandoned_at = None
    outbox.put_delivery(session, delivery.id, notify_at=now)
    session.flush()
    _record(session, "delivery-rearmed", revision, delivery, now, {})


def _reached(session: Session, delivery: Delivery) -> None:
    """Record that the destination responds: the others that wait for it need not hold back."""
    delivery.unavailable_at = None
    session.flush()
    others = session.scalars(
        select(Delivery.id)
        .where(
            Delivery.state == DeliveryState.PENDING,
            Delivery.destination == delivery.destination,
            Delivery.unavailable_at.is_not(None),
        )
        .with_for_update(skip_locked=True, key_share=True)  # two that end at once must not deadlock
    ).all()
    if others:
        session.execute(
            update(Delivery)
            .where(Delivery.id.in_(others))
            .values(unavailable_at=None)
            .execution_options(synchronize_session="fetch")
        )


def backoff_s(attempt: int) -> float:
    """Seconds to wait after the `attempt` (from 1): 10, 20, 40 … 3600."""
    return min(FIRST_RETRY_S * 2.0 ** min(max(attempt, 1) - 1, 20), LONGEST_RETRY_S)


def store_statuses(session: Session, delivery_id: str, statuses: Mapping[str, int]) -> None:
    """Store the C-STORE status of each object, given by SOP Instance UID."""
    objects = session.execute(
        select(DeliveryObject, ReportObjectRow.sop_instance_uid)
        .join(ReportObjectRow, ReportObjectRow.id == DeliveryObject.report_object_id)
        .where(DeliveryObject.delivery_id == delivery_id)
    )
    for row, sop_instance_uid in objects:
        row.dimse_status = statuses.get(sop_instance_uid)


def _finish(session: Session, revision: Revision, *, now: datetime) -> None:
    """Move the revision on if this was its last delivery."""
    if revision.state is RevisionState.REJECTED:
        return  # a final state: delivering the report on it changes nothing
    deliveries = session.execute(
        select(Delivery.state, Delivery.proof).where(Delivery.revision_id == revision.id)
    ).all()
    if any(state is not DeliveryState.DELIVERED for state, _ in deliveries):
        return
    if revision.state is RevisionState.GRADED:
        detail = {"destinations": len(deliveries)}
        move(session, revision, RevisionState.DELIVERED, now=now, detail=detail)
    of_archives = {proof for _, proof in deliveries} - {Proof.HL7_ACK}  # a RIS keeps no objects
    if of_archives == {Proof.COMMITMENT}:
        move(session, revision, RevisionState.COMMITTED, now=now)


def _record(
    session: Session,
    event: str,
    revision: Revision,
    delivery: Delivery,
    now: datetime,
    detail: Mapping[str, Any],
) -> None:
    audit.append(
        session,
        event,
        study_uid=revision.study_uid,
        revision_id=revision.id,
        detail={"destination": delivery.destination, "attempt": delivery.attempt, **detail},
        now=now,
    )
