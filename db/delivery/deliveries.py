"""Delivery, second half: who holds it, what the attempt brought, and when to try again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from core.results import ObjectKind
from db import audit, outbox
from db.enums import DeliveryState, RevisionState
from db.models import Delivery, DeliveryObject, ReportObjectRow, Revision
from db.states import lock_revision, move

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

FIRST_RETRY_S: Final = 10.0
LONGEST_RETRY_S: Final = 3600.0
GIVE_UP_AFTER: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object to send: the exact bytes are in the Part 10 file at `path`."""

    kind: ObjectKind
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """The right to send one revision's objects to one destination; `token` is fencing."""

    delivery_id: str
    revision_id: str
    destination: str
    token: int
    attempt: int
    objects: tuple[StoredObject, ...]
    stored: bool
    """Everything was stored by an attempt before; what is missing is its commitment."""


def claim_delivery(
    session: Session, delivery_id: str, *, now: datetime, lease_s: float
) -> DeliveryClaim | None:
    """Take a waiting delivery, or one whose sender was lost; None when there is nothing to do."""
    delivery = lock(session, delivery_id)
    if delivery is None:
        return None
    waits = delivery.state is DeliveryState.PENDING and (delivery.not_before or now) <= now
    lost = delivery.state is DeliveryState.SENDING and (delivery.lease_until or now) <= now
    if not (waits or lost):
        return None
    delivery.state = DeliveryState.SENDING
    delivery.attempt += 1
    delivery.token += 1
    delivery.not_before = None
    delivery.lease_until = now + timedelta(seconds=lease_s)
    outbox.remove_delivery(session, delivery.id)
    session.flush()
    return DeliveryClaim(
        delivery.id,
        delivery.revision_id,
        delivery.destination,
        delivery.token,
        delivery.attempt,
        _read_objects(session, delivery.id),
        delivery.stored_at is not None,
    )


def extend(session: Session, claim: DeliveryClaim, *, now: datetime, lease_s: float) -> bool:
    """Hold on to a claim for `lease_s` more seconds from now; False when it is stale."""
    delivery = hold(session, claim)
    if delivery is None:
        return False
    delivery.lease_until = now + timedelta(seconds=lease_s)
    return True


def delivered(
    session: Session,
    claim: DeliveryClaim,
    *,
    now: datetime,
    proof: str,
    statuses: Mapping[str, int],
) -> bool:
    """Note that the destination has everything; with the last one a graded revision is delivered.

    Parameters
    ----------
    session : Session
    claim : DeliveryClaim
    now : datetime
    proof : str
        ``"commitment"``, or how else storage was shown; the revision is committed when every
        destination gave its commitment.
    statuses : mapping
        C-STORE status of each SOP Instance UID.

    Returns
    -------
    bool
        False when the claim is stale; nothing was changed.
    """
    # The revision first: of two destinations that finish at once, one must see the other.
    revision = lock_revision(session, claim.revision_id)
    delivery = hold(session, claim)
    if revision is None or delivery is None:
        return False
    store_statuses(session, delivery.id, statuses)
    complete(session, revision, delivery, now=now, proof=proof)
    return True


def retry_later(
    session: Session, claim: DeliveryClaim, *, now: datetime, error: str, status: int | None
) -> bool:
    """Try again after 10 s, 20 s, 40 s, … up to an hour; after seven days wait for a person.

    Returns False, and changes nothing, when the claim is stale.
    """
    revision = lock_revision(session, claim.revision_id)
    delivery = hold(session, claim)
    if revision is None or delivery is None:
        return False
    wait_or_give_up(session, revision, delivery, now=now, error=error, status=status)
    return True


def park(
    session: Session, claim: DeliveryClaim, *, now: datetime, error: str, status: int | None
) -> bool:
    """Let the delivery wait for a person. False, and no change, when the claim is stale."""
    revision = lock_revision(session, claim.revision_id)
    delivery = hold(session, claim)
    if revision is None or delivery is None:
        return False
    give_up(session, revision, delivery, now=now, error=error, status=status)
    return True


def rearm(session: Session, destination: str | None = None, *, now: datetime) -> int:
    """Let parked deliveries, of one destination or of all, be tried again; return how many."""
    rows = session.execute(
        select(Delivery, Revision)
        .join(Revision, Revision.id == Delivery.revision_id)
        .where(
            Delivery.state == DeliveryState.PARKED,
            *([Delivery.destination == destination] if destination else []),
        )
        .order_by(Delivery.id)
        .with_for_update(of=Delivery, key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for delivery, _ in rows:
        delivery.state = DeliveryState.PENDING
        delivery.attempt, delivery.waiting_since, delivery.not_before = 0, now, now
        delivery.stored_at = None  # whatever was stored is sent again: nobody knows what happened
        outbox.put_delivery(session, delivery.id, ring_at=now)
    session.flush()
    for delivery, revision in rows:
        _record(session, "delivery-rearmed", revision, delivery, now, {})
    return len(rows)


def sweep(session: Session, *, now: datetime, limit: int = 100) -> list[str]:
    """Let deliveries wait again whose sender was lost; return their ids."""
    lost = session.scalars(
        select(Delivery)
        .where(Delivery.state == DeliveryState.SENDING, Delivery.lease_until <= now)
        .order_by(Delivery.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for delivery in lost:
        wait_again(
            session,
            delivery,
            now=now,
            delay_s=backoff_s(delivery.attempt),
            error="the sender was lost",
            status=None,
        )
    return [delivery.id for delivery in lost]


# --- What becomes of a locked delivery, whoever decides it ----------------------------------------
def complete(
    session: Session, revision: Revision, delivery: Delivery, *, now: datetime, proof: str
) -> None:
    """Note that the destination has everything; with the last one the revision is delivered.

    A delivery that was done gets the better proof.
    """
    delivery.state = DeliveryState.DELIVERED
    delivery.delivered_at = delivery.delivered_at or now
    delivery.proof, delivery.lease_until = proof, None
    delivery.last_error = delivery.last_status = delivery.not_before = None
    outbox.remove_delivery(session, delivery.id)
    session.flush()
    _record(session, "delivery-done", revision, delivery, now, {"proof": proof})
    _finish(session, revision, now=now)


def give_up(
    session: Session,
    revision: Revision,
    delivery: Delivery,
    *,
    now: datetime,
    error: str,
    status: int | None,
) -> None:
    """Let the delivery wait for a person."""
    delivery.state, delivery.lease_until = DeliveryState.PARKED, None
    delivery.last_error, delivery.last_status = error, status
    outbox.remove_delivery(session, delivery.id)
    session.flush()
    _record(session, "delivery-parked", revision, delivery, now, {"status": status})


def wait_or_give_up(
    session: Session,
    revision: Revision,
    delivery: Delivery,
    *,
    now: datetime,
    error: str,
    status: int | None,
) -> None:
    """Let the delivery be tried again, unless that has gone on for seven days."""
    if now - delivery.waiting_since >= GIVE_UP_AFTER:
        give_up(session, revision, delivery, now=now, error=error, status=status)
    else:
        delay_s = backoff_s(delivery.attempt)
        wait_again(session, delivery, now=now, delay_s=delay_s, error=error, status=status)


def backoff_s(attempt: int) -> float:
    """Seconds to wait after the `attempt` (from 1): 10, 20, 40 … 3600."""
    return min(FIRST_RETRY_S * 2.0 ** min(max(attempt, 1) - 1, 20), LONGEST_RETRY_S)


def wait_again(
    session: Session,
    delivery: Delivery,
    *,
    now: datetime,
    delay_s: float,
    error: str,
    status: int | None,
) -> None:
    """Let the delivery wait for its next attempt, `delay_s` seconds from now."""
    delivery.state, delivery.lease_until = DeliveryState.PENDING, None
    delivery.not_before = now + timedelta(seconds=delay_s)
    delivery.last_error, delivery.last_status = error, status
    outbox.remove_delivery(session, delivery.id)
    outbox.put_delivery(session, delivery.id, ring_at=delivery.not_before)
    session.flush()


def _finish(session: Session, revision: Revision, *, now: datetime) -> None:
    if revision.state is RevisionState.REJECTED:
        return  # that is its end; who is told of it changes nothing
    proofs = session.execute(
        select(Delivery.state, Delivery.proof).where(Delivery.revision_id == revision.id)
    ).all()
    if any(state is not DeliveryState.DELIVERED for state, _ in proofs):
        return
    if revision.state is RevisionState.GRADED:
        detail = {"destinations": len(proofs)}
        move(session, revision, RevisionState.DELIVERED, now=now, detail=detail)
    kept = {proof for _, proof in proofs} - {"hl7-ack"}  # a RIS keeps no objects
    if kept == {"commitment"}:
        move(session, revision, RevisionState.COMMITTED, now=now)


def store_statuses(session: Session, delivery_id: str, statuses: Mapping[str, int]) -> None:
    """Keep the C-STORE status of each SOP Instance UID."""
    objects = session.execute(
        select(DeliveryObject, ReportObjectRow.sop_instance_uid)
        .join(ReportObjectRow, ReportObjectRow.id == DeliveryObject.report_object_id)
        .where(DeliveryObject.delivery_id == delivery_id)
    )
    for row, sop_instance_uid in objects:
        row.dimse_status = statuses.get(sop_instance_uid)


def _read_objects(session: Session, delivery_id: str) -> tuple[StoredObject, ...]:
    rows = session.scalars(
        select(ReportObjectRow)
        .join(DeliveryObject, DeliveryObject.report_object_id == ReportObjectRow.id)
        .where(DeliveryObject.delivery_id == delivery_id)
        .order_by(ReportObjectRow.position)
    )
    return tuple(
        StoredObject(
            ObjectKind(row.kind),
            row.sop_class_uid,
            row.sop_instance_uid,
            row.transfer_syntax_uid,
            Path(row.path),
            row.sha256,
        )
        for row in rows
    )


def lock(session: Session, delivery_id: str) -> Delivery | None:
    """Read a delivery afresh and keep others from changing it until the transaction ends."""
    return session.scalar(
        select(Delivery)
        .where(Delivery.id == delivery_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def hold(session: Session, claim: DeliveryClaim) -> Delivery | None:
    """Lock the claimed delivery; None when the claim is stale."""
    delivery = lock(session, claim.delivery_id)
    if (
        delivery is None
        or delivery.state is not DeliveryState.SENDING
        or delivery.token != claim.token
    ):
        return None
    return delivery


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
