"""Table of the outbox."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base


class OutboxRow(Base):
    """One pending notification; the row exists as long as its target waits for a worker."""

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint("(revision_id IS NULL) <> (delivery_id IS NULL)", name="one_target"),
        {"comment": "Revisions and deliveries that wait for a worker"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, comment="Number of the row")
    revision_id: Mapped[str | None] = mapped_column(
        String(32), ForeignKey("revisions.id"), unique=True, comment="Revision that waits"
    )
    delivery_id: Mapped[str | None] = mapped_column(
        String(32), ForeignKey("deliveries.id"), unique=True, comment="Delivery that waits"
    )
    notify_at: Mapped[datetime] = mapped_column(
        index=True, comment="When the workers are notified next"
    )
    notifications: Mapped[int] = mapped_column(
        default=0, comment="How often the workers were notified"
    )
