"""Tables of the audit trail, and of the refusals that are counted beside it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, BigInteger, CheckConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, text_column
from db.models.types import UID_LENGTH, JsonObject


class AuditEvent(Base):
    """One event of the audit trail; triggers refuse UPDATE and DELETE."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index(None, "revision_id", "seq"),
        Index(None, "study_uid", "seq"),
        {"comment": "Append-only audit trail, hash-chained; no patient data"},
    )

    seq: Mapped[int] = mapped_column(
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="Number of the event, from 1 without gaps",
    )
    at: Mapped[datetime] = mapped_column(comment="When it happened")
    event: Mapped[str] = mapped_column(
        String(64), comment="A revision state, or the name of another event"
    )
    study_uid: Mapped[str | None] = mapped_column(String(UID_LENGTH), comment="Study concerned")
    revision_id: Mapped[str | None] = mapped_column(String(32), comment="Revision concerned")
    detail: Mapped[JsonObject] = mapped_column(JSON, comment="UIDs, codes and numbers only")
    previous_hash: Mapped[str] = mapped_column(String(64), comment="Hash of the preceding event")
    hash: Mapped[str] = mapped_column(
        String(64), comment="SHA-256 of this event and the preceding hash"
    )


class AuditHead(Base):
    """Number and hash of the newest event, so that a removed end of the chain is detected."""

    __tablename__ = "audit_head"
    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        {"comment": "Newest audit event; one row"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="Always 1")
    seq: Mapped[int] = mapped_column(BigInteger, comment="Number of the newest event")
    hash: Mapped[str] = mapped_column(String(64), comment="Hash of the newest event")


class RefusalCount(Base):
    """How often a caller was refused for one reason; `db.refusals` limits the number of rows."""

    __tablename__ = "refusal_counts"
    __table_args__ = (
        UniqueConstraint("event", "reason", "calling_ae", "peer_address"),
        {"comment": "Refusals counted by event, reason and caller; a limited number of rows"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, comment="Number of the row")
    event: Mapped[str] = mapped_column(String(64), comment="Name of the audit event")
    reason: Mapped[str] = text_column("Reason code, or a sentence for an instance")
    calling_ae: Mapped[str] = text_column("Calling AE title; empty: not known, *: various")
    peer_address: Mapped[str] = text_column("IPv4 address or IPv6 /64 network; *: various")
    times: Mapped[int] = mapped_column(BigInteger, comment="How often")
    first_at: Mapped[datetime] = mapped_column(comment="When first")
    last_at: Mapped[datetime] = mapped_column(comment="When last")
