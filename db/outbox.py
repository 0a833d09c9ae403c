"""The outbox: revisions and deliveries of which the workers are to be notified.

A row exists exactly as long as its target waits: it is inserted in the transaction that makes the
target wait and deleted in the one that claims it. The housekeeper notifies the workers through the
broker, and again while the row exists, so a lost message costs seconds, never a study.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select, update

from db.enums import OutboxKind
from db.models import OutboxRow
from db.session import insert_or_ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import InstrumentedAttribute, Session

REPEAT_AFTER_S: Final = 30.0
"""A notification is repeated after this time: what Redis lost is processed within a minute."""


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """One pending notification."""

    id: int
    kind: OutboxKind
    target_id: str


def due(session: Session, *, now: datetime, limit: int = 100) -> list[OutboxItem]:
    """List the notifications that are due, the longest overdue first, at most `limit` of each kind.

    A long queue of studies must not delay the delivery of those that are graded already.
    """
    return [
        item
        for kind, target in (
            (OutboxKind.REVISION, OutboxRow.revision_id),
            (OutboxKind.DELIVERY, OutboxRow.delivery_id),
        )
        for item in _due(session, kind, target, now, limit)
    ]


def _due(
    session: Session,
    kind: OutboxKind,
    target: InstrumentedAttribute[str | None],
    now: datetime,
    limit: int,
) -> list[OutboxItem]:
    rows = session.execute(
        select(OutboxRow.id, target)
        .where(target.is_not(None), OutboxRow.notify_at <= now)
        .order_by(OutboxRow.notify_at, OutboxRow.id)
        .limit(limit)
    )
    return [OutboxItem(row_id, kind, target_id) for row_id, target_id in rows if target_id]


def mark_notified(
    session: Session,
    ids: Sequence[int],
    *,
    now: datetime,
    repeat_after_s: float = REPEAT_AFTER_S,
) -> None:
    """Record that the workers were notified; each row is due again after `repeat_after_s`."""
    session.execute(
        update(OutboxRow)
        .where(OutboxRow.id.in_(ids))
        .values(
            notify_at=now + timedelta(seconds=repeat_after_s),
            notifications=OutboxRow.notifications + 1,
        )
    )


def put_revision(session: Session, revision_id: str, *, notify_at: datetime) -> None:
    """Insert a waiting revision; the workers are notified from `notify_at` on."""
    session.execute(
        insert_or_ignore(session, OutboxRow).values(revision_id=revision_id, notify_at=notify_at)
    )


def put_delivery(session: Session, delivery_id: str, *, notify_at: datetime) -> None:
    """Insert a waiting delivery; the workers are notified from `notify_at` on."""
    session.execute(
        insert_or_ignore(session, OutboxRow).values(delivery_id=delivery_id, notify_at=notify_at)
    )


def remove_revision(session: Session, revision_id: str) -> None:
    """Delete the row of a revision that no longer waits."""
    session.execute(delete(OutboxRow).where(OutboxRow.revision_id == revision_id))


def remove_delivery(session: Session, delivery_id: str) -> None:
    """Delete the row of a delivery that no longer waits."""
    session.execute(delete(OutboxRow).where(OutboxRow.delivery_id == delivery_id))
