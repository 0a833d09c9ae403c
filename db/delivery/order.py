"""Which delivery is next: few at a time to each destination, and revisions in their order.

A destination that does not respond holds whoever sends to it until the network times out. So only a
few deliveries to one destination are in hand at once, and a single one, now and then, while it
cannot be reached: processes remain for the others.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import aliased

from db.delivery.claims import claim_delivery
from db.enums import DeliveryState
from db.models import Delivery, Revision

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from db.delivery.claims import DeliveryClaim

PROBE_INTERVAL_S: Final = 10.0
"""Between attempts at a destination that cannot be reached, whichever delivery they are for."""

_LOCK: Final = 0x65707677  # key of the advisory lock that serialises the choice


def lock_order(session: Session) -> None:
    """Let no other transaction choose or rearm a delivery until this one ends.

    Two that choose at once would not see what the other takes. SQLite has one writer anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def claim_next(
    session: Session, *, now: datetime, lease_s: float, per_destination: int
) -> DeliveryClaim | None:
    """Claim the delivery that is next, if one may be sent now.

    Parameters
    ----------
    session : Session
        In a transaction that has taken no other lock.
    now : datetime
    lease_s : float
    per_destination : int
        Deliveries to one destination that may be in hand at once.

    Returns
    -------
    DeliveryClaim or None
        Of the delivery with the fewest attempts that has waited longest. None if none is due, or
        every destination of those that are due has enough in hand or cannot be reached.
    """
    lock_order(session)
    busy = _busy_destinations(session, now, per_destination)
    delivery_id = session.scalar(
        select(Delivery.id)
        .join(Revision, Revision.id == Delivery.revision_id)
        .where(
            Delivery.state == DeliveryState.PENDING,
            or_(Delivery.not_before.is_(None), Delivery.not_before <= now),
            *([Delivery.destination.not_in(busy)] if busy else []),
            ~_follows_unsent(),
        )
        .order_by(Delivery.attempt, Delivery.waiting_since, Revision.number)
        .limit(1)
    )
    if delivery_id is None:
        return None
    return claim_delivery(session, delivery_id, now=now, lease_s=lease_s)


def is_overtaken(session: Session, delivery: Delivery, revision: Revision) -> bool:
    """Whether the destination has, or is being sent, the report of a newer revision."""
    newer, of_newer = aliased(Delivery), aliased(Revision)
    found = (
        select(newer.id)
        .join(of_newer, of_newer.id == newer.revision_id)
        .where(
            of_newer.study_uid == revision.study_uid,
            of_newer.number > revision.number,
            newer.destination == delivery.destination,
            or_(
                newer.state.in_((DeliveryState.SENDING, DeliveryState.DELIVERED)),
                newer.stored_at.is_not(None),
            ),
        )
    )
    return session.scalar(found.limit(1)) is not None


def _busy_destinations(session: Session, now: datetime, per_destination: int) -> list[str]:
    """Destinations to which nothing may be sent at this moment."""
    in_hand = session.execute(
        select(Delivery.destination, func.count())
        .where(Delivery.state == DeliveryState.SENDING, Delivery.lease_until > now)
        .group_by(Delivery.destination)
    ).all()
    unreachable = session.execute(
        select(Delivery.destination, func.max(Delivery.unavailable_at))
        .where(
            Delivery.state.in_((DeliveryState.PENDING, DeliveryState.SENDING)),
            Delivery.unavailable_at.is_not(None),
        )
        .group_by(Delivery.destination)
    ).all()
    sending = {name for name, _ in in_hand}
    tried_since = now - timedelta(seconds=PROBE_INTERVAL_S)
    return [name for name, count in in_hand if count >= per_destination] + [
        name for name, last in unreachable if name in sending or (last and last > tried_since)
    ]


def _follows_unsent() -> ColumnElement[bool]:
    """Whether the destination still lacks, or is being sent, another report on the study.

    Sent out of order, the report of an older revision would arrive last, and a RIS would take its
    grade for the study's. One that only waits for its commitment has arrived.
    """
    other, of_other = aliased(Delivery), aliased(Revision)
    return exists(
        select(other.id)
        .join(of_other, of_other.id == other.revision_id)
        .where(
            of_other.study_uid == Revision.study_uid,
            other.destination == Delivery.destination,
            other.id != Delivery.id,
            or_(
                other.state == DeliveryState.SENDING,
                and_(
                    other.state == DeliveryState.PENDING,
                    of_other.number < Revision.number,
                    other.stored_at.is_(None),
                ),
            ),
        )
        .correlate(Delivery, Revision)
    )
