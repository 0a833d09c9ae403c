"""Delivery, from a worker's side: claiming a delivery, and recording how the attempt ended.

Every function checks the fencing token: with a stale claim it changes nothing and returns False.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from core.results import ObjectKind
from db import outbox
from db.delivery import transitions
from db.enums import DeliveryState
from db.models import Delivery, DeliveryObject, ReportObjectRow
from db.states import lock_revision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from db.enums import Proof
    from db.models import Revision


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
    """The right to send the objects of one revision to one destination.

    Attributes
    ----------
    token : int
        Fencing token.
    attempt : int
        Number of this attempt, from 1.
    stored : bool
        Whether an earlier attempt stored everything, so that only the commitment is missing.
    """

    delivery_id: str
    revision_id: str
    destination: str
    token: int
    attempt: int
    objects: tuple[StoredObject, ...]
    stored: bool


def claim_delivery(
    session: Session, delivery_id: str, *, now: datetime, lease_s: float
) -> DeliveryClaim | None:
    """Claim a delivery that waits or whose lease has expired; None if there is nothing to do."""
    delivery = transitions.lock_delivery(session, delivery_id)
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


def hold(session: Session, claim: DeliveryClaim) -> Delivery | None:
    """Lock the claimed delivery; None when the claim is stale."""
    delivery = transitions.lock_delivery(session, claim.delivery_id)
    if (
        delivery is None
        or delivery.state is not DeliveryState.SENDING
        or delivery.token != claim.token
    ):
        return None
    return delivery


def extend(session: Session, claim: DeliveryClaim, *, now: datetime, lease_s: float) -> bool:
    """Extend the lease to `lease_s` seconds from now; False when the claim is stale."""
    delivery = hold(session, claim)
    if delivery is None:
        return False
    delivery.lease_until = now + timedelta(seconds=lease_s)
    return True


def record_delivered(
    session: Session,
    claim: DeliveryClaim,
    *,
    now: datetime,
    proof: Proof,
    statuses: Mapping[str, int],
) -> bool:
    """Record that the destination has everything; see `transitions.deliver`.

    Parameters
    ----------
    session : Session
    claim : DeliveryClaim
    now : datetime
    proof : Proof
    statuses : mapping
        C-STORE status by SOP Instance UID.

    Returns
    -------
    bool
        False when the claim is stale; nothing was changed.
    """
    held = _hold_with_revision(session, claim)
    if held is None:
        return False
    revision, delivery = held
    transitions.store_statuses(session, delivery.id, statuses)
    transitions.deliver(session, revision, delivery, now=now, proof=proof)
    return True


def record_postponed(
    session: Session,
    claim: DeliveryClaim,
    *,
    now: datetime,
    error: str,
    status: int | None,
    available: bool = True,
) -> bool:
    """Record that a later attempt may succeed; see `transitions.postpone`.

    Returns
    -------
    bool
        False when the claim is stale; nothing was changed.
    """
    held = _hold_with_revision(session, claim)
    if held is None:
        return False
    transitions.postpone(session, *held, now=now, error=error, status=status, available=available)
    return True


def record_parked(
    session: Session, claim: DeliveryClaim, *, now: datetime, error: str, status: int | None
) -> bool:
    """Record that only an operator can help; see `transitions.park`.

    Returns
    -------
    bool
        False when the claim is stale; nothing was changed.
    """
    held = _hold_with_revision(session, claim)
    if held is None:
        return False
    transitions.park(session, *held, now=now, error=error, status=status)
    return True


def sweep(session: Session, *, now: datetime, limit: int = 100) -> list[str]:
    """Postpone the deliveries whose lease has expired; return their ids."""
    lost = session.scalars(
        select(Delivery)
        .where(Delivery.state == DeliveryState.SENDING, Delivery.lease_until <= now)
        .order_by(Delivery.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for delivery in lost:
        transitions.postpone_by(
            session,
            delivery,
            min(transitions.backoff_s(delivery.attempt), transitions.LONGEST_UNAVAILABLE_S),
            now=now,
            error="the lease of the sending worker expired",
            status=None,
        )
    return [delivery.id for delivery in lost]


def _hold_with_revision(session: Session, claim: DeliveryClaim) -> tuple[Revision, Delivery] | None:
    """Lock the revision, then the claimed delivery; None when the claim is stale.

    In this order, because of two destinations that finish at once one must see the other.
    """
    revision = lock_revision(session, claim.revision_id)
    delivery = hold(session, claim)
    return None if revision is None or delivery is None else (revision, delivery)


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
