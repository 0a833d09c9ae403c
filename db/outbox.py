"""The outbox: what waits for a worker and whose doorbell has to be rung.

A row exists exactly as long as its target waits: written in the transaction that makes the target
wait, removed in the one that claims it. A lost ring costs seconds, never a study.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import delete, select, update

from db.models import OutboxRow
from db.session import insert_or_ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

RERING_AFTER_S: Final = 30.0
"""What was rung and still waits is rung again: whatever Redis lost moves within a minute."""


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """One doorbell to ring."""

    id: int
    kind: Literal["revision", "delivery"]
    target_id: str


def due(session: Session, *, now: datetime, limit: int = 100) -> list[OutboxItem]:
    """List what is to be rung now, the longest due first."""
    rows = session.scalars(
        select(OutboxRow)
        .where(OutboxRow.ring_at <= now)
        .order_by(OutboxRow.ring_at, OutboxRow.id)
        .limit(limit)
    )
    return [
        OutboxItem(row.id, "revision", row.revision_id)
        if row.revision_id is not None
        else OutboxItem(row.id, "delivery", row.delivery_id or "")
        for row in rows
    ]


def mark_rung(
    session: Session,
    ids: Sequence[int],
    *,
    now: datetime,
    rering_after_s: float = RERING_AFTER_S,
) -> None:
    """Note that these were rung; whatever still waits after `rering_after_s` is due again."""
    session.execute(
        update(OutboxRow)
        .where(OutboxRow.id.in_(ids))
        .values(ring_at=now + timedelta(seconds=rering_after_s), rung=OutboxRow.rung + 1)
    )


def put_revision(session: Session, revision_id: str, *, ring_at: datetime) -> None:
    """Let the revision wait for a worker from `ring_at` on."""
    session.execute(
        insert_or_ignore(session, OutboxRow).values(revision_id=revision_id, ring_at=ring_at)
    )


def put_delivery(session: Session, delivery_id: str, *, ring_at: datetime) -> None:
    """Let the delivery wait for a worker from `ring_at` on."""
    session.execute(
        insert_or_ignore(session, OutboxRow).values(delivery_id=delivery_id, ring_at=ring_at)
    )


def remove_revision(session: Session, revision_id: str) -> None:
    """Take the revision off the list."""
    session.execute(delete(OutboxRow).where(OutboxRow.revision_id == revision_id))


def remove_delivery(session: Session, delivery_id: str) -> None:
    """Take the delivery off the list."""
    session.execute(delete(OutboxRow).where(OutboxRow.delivery_id == delivery_id))
