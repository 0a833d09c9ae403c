"""Tables of reports and deliveries: objects, deliveries, storage commitment requests."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.enums import DeliveryState, Proof
from db.models.base import Base, revision_key, text_column, uid_column
from db.models.types import UID_LENGTH, JsonObject, StoredEnum, text_enum


class ReportObjectRow(Base):
    """One DICOM object of a report; its bytes are durable on disk before it is sent."""

    __tablename__ = "report_objects"
    __table_args__ = (
        UniqueConstraint("revision_id", "sop_instance_uid"),
        {"comment": "DICOM objects of the reports"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, comment="Number of the row")
    revision_id: Mapped[str] = revision_key()
    position: Mapped[int] = mapped_column(comment="Order of sending, from 0")
    kind: Mapped[str] = mapped_column(
        String(2), comment="sr (SR), sc (secondary capture) or pm (parametric map)"
    )
    sop_class_uid: Mapped[str] = uid_column("SOP Class UID")
    sop_instance_uid: Mapped[str] = uid_column("SOP Instance UID", index=True)
    series_uid: Mapped[str] = uid_column("Series Instance UID")
    transfer_syntax_uid: Mapped[str] = uid_column("Transfer Syntax UID")
    path: Mapped[str] = text_column("Part 10 file with the exact bytes")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the file")
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file")


class Delivery(Base):
    """The delivery of one revision's report to one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("revision_id", "destination"),
        Index(None, "state", "lease_until"),
        # Named, because the convention would give it the same name.
        Index("ix_deliveries_state_destination", "state", "destination"),
        {"comment": "Deliveries of reports, one for each revision and destination"},
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True, comment="Opaque id (UUID, hex)")
    revision_id: Mapped[str] = revision_key()
    destination: Mapped[str] = text_column("AE@host:port, or hl7://host:port")
    state: Mapped[DeliveryState] = mapped_column(
        text_enum(DeliveryState, "state"), comment="State of the delivery"
    )
    attempt: Mapped[int] = mapped_column(
        default=0, comment="Attempts since it was planned or rearmed"
    )
    token: Mapped[int] = mapped_column(
        default=0, comment="Fencing token: number of the latest claim"
    )
    waiting_since: Mapped[datetime] = mapped_column(comment="When it was planned or rearmed")
    not_before: Mapped[datetime | None] = mapped_column(comment="Earliest time of the next attempt")
    lease_until: Mapped[datetime | None] = mapped_column(
        comment="When the lease of the sending worker expires"
    )
    last_error: Mapped[str | None] = mapped_column(comment="Why the latest attempt failed")
    last_status: Mapped[int | None] = mapped_column(
        comment="DIMSE status of the latest failure, if there was one"
    )
    proof: Mapped[Proof | None] = mapped_column(
        StoredEnum(Proof),
        comment="What shows the delivery: commitment, c-find, store-status or hl7-ack",
    )
    delivered_at: Mapped[datetime | None] = mapped_column(comment="When the proof was obtained")
    stored_at: Mapped[datetime | None] = mapped_column(
        comment="When everything was stored and only the commitment was missing"
    )
    unavailable_at: Mapped[datetime | None] = mapped_column(
        comment="When an attempt found the destination unavailable, if none succeeded since"
    )
    abandoned_at: Mapped[datetime | None] = mapped_column(
        comment="When an operator accepted that it stays parked"
    )


class CommitmentRequest(Base):
    """One N-ACTION that requests storage commitment for a delivery."""

    __tablename__ = "commitment_requests"
    __table_args__ = ({"comment": "Storage commitment requests (PS3.4 annex J)"},)

    transaction_uid: Mapped[str] = mapped_column(
        String(UID_LENGTH), primary_key=True, comment="Transaction UID of the N-ACTION"
    )
    delivery_id: Mapped[str] = mapped_column(
        String(32),
        ForeignKey("deliveries.id"),
        index=True,
        comment="Delivery whose objects it covers",
    )
    requested_at: Mapped[datetime] = mapped_column(
        comment="When it was recorded, just before it was sent"
    )
    answered_at: Mapped[datetime | None] = mapped_column(comment="When the N-EVENT-REPORT arrived")
    failed: Mapped[JsonObject | None] = mapped_column(
        JSON, comment="Failure Reason by SOP Instance UID that was not committed"
    )
    reporter_ae: Mapped[str | None] = mapped_column(comment="AE title that reported")
    reporter_address: Mapped[str | None] = mapped_column(comment="Address that reported")
    reporter_certificate: Mapped[str | None] = mapped_column(
        comment="Names in the certificate of the reporter; empty without TLS"
    )


class DeliveryObject(Base):
    """One object of a delivery."""

    __tablename__ = "delivery_objects"
    __table_args__ = ({"comment": "Objects of each delivery"},)

    delivery_id: Mapped[str] = mapped_column(
        String(32), ForeignKey("deliveries.id"), primary_key=True, comment="Delivery"
    )
    report_object_id: Mapped[int] = mapped_column(
        ForeignKey("report_objects.id"), primary_key=True, comment="Object"
    )
    dimse_status: Mapped[int | None] = mapped_column(comment="C-STORE status from the destination")
