"""Tables of what was made and sent: report objects, deliveries, storage commitment."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.enums import DeliveryState
from db.models.base import Base, revision_key, text_column, uid_column
from db.models.types import UID_LENGTH, JsonObject, text_enum


class ReportObjectRow(Base):
    """One DICOM object of a report; its exact bytes are kept on disk before it is sent."""

    __tablename__ = "report_objects"
    __table_args__ = (
        UniqueConstraint("revision_id", "sop_instance_uid"),
        {"comment": "DICOM objects made for a revision"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, comment="Number of the row")
    revision_id: Mapped[str] = revision_key()
    position: Mapped[int] = mapped_column(comment="Order of sending, from 0")
    kind: Mapped[str] = mapped_column(String(2), comment="sr, sc or pm")
    sop_class_uid: Mapped[str] = uid_column("SOP Class UID")
    sop_instance_uid: Mapped[str] = uid_column("SOP Instance UID", index=True)
    series_uid: Mapped[str] = uid_column("Series Instance UID")
    transfer_syntax_uid: Mapped[str] = uid_column("Transfer Syntax UID")
    path: Mapped[str] = text_column("Part 10 file with the exact bytes")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the file")
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file")


class Delivery(Base):
    """The results of one revision on their way to one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("revision_id", "destination"),
        Index(None, "state", "lease_until"),
        {"comment": "Deliveries of results, one for each destination"},
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True, comment="Opaque id (UUID, hex)")
    revision_id: Mapped[str] = revision_key()
    destination: Mapped[str] = text_column("AE@host:port")
    state: Mapped[DeliveryState] = mapped_column(
        text_enum(DeliveryState, "state"), comment="Where the delivery stands"
    )
    attempt: Mapped[int] = mapped_column(default=0, comment="Attempts since it began to wait")
    token: Mapped[int] = mapped_column(default=0, comment="Fencing token: number of the claim")
    waiting_since: Mapped[datetime] = mapped_column(comment="When it began to wait")
    not_before: Mapped[datetime | None] = mapped_column(comment="No attempt before this moment")
    lease_until: Mapped[datetime | None] = mapped_column(
        comment="When the worker that sends it counts as lost"
    )
    last_error: Mapped[str | None] = mapped_column(comment="Why the latest attempt failed")
    last_status: Mapped[int | None] = mapped_column(comment="Its DIMSE status, if there was one")
    proof: Mapped[str | None] = mapped_column(
        comment="How storage was proven, e.g. commitment, find or status"
    )
    delivered_at: Mapped[datetime | None] = mapped_column(comment="When storage was proven")
    stored_at: Mapped[datetime | None] = mapped_column(
        comment="When everything was stored and only its commitment was missing"
    )


class CommitmentRequest(Base):
    """Storage commitment of one delivery, asked for by an N-ACTION."""

    __tablename__ = "commitment_requests"
    __table_args__ = ({"comment": "Storage commitment asked of destinations (PS3.4 annex J)"},)

    transaction_uid: Mapped[str] = mapped_column(
        String(UID_LENGTH), primary_key=True, comment="Transaction UID of the N-ACTION"
    )
    delivery_id: Mapped[str] = mapped_column(
        String(32), ForeignKey("deliveries.id"), index=True, comment="Delivery it is about"
    )
    requested_at: Mapped[datetime] = mapped_column(comment="When it was about to be sent")
    answered_at: Mapped[datetime | None] = mapped_column(comment="When the N-EVENT-REPORT came")
    failed: Mapped[JsonObject | None] = mapped_column(
        JSON, comment="Failure Reason of each SOP Instance UID that is not committed"
    )


class DeliveryObject(Base):
    """One object of a delivery."""

    __tablename__ = "delivery_objects"
    __table_args__ = ({"comment": "Which objects a destination is to receive"},)

    delivery_id: Mapped[str] = mapped_column(
        String(32), ForeignKey("deliveries.id"), primary_key=True, comment="Delivery"
    )
    report_object_id: Mapped[int] = mapped_column(
        ForeignKey("report_objects.id"), primary_key=True, comment="Object"
    )
    dimse_status: Mapped[int | None] = mapped_column(comment="C-STORE status of the destination")
