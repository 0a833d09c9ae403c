"""Tables of what was received: studies, their revisions, instances."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.enums import RevisionState
from db.models.base import Base, revision_key, text_column, uid_column
from db.models.types import text_enum


class Study(Base):
    """One DICOM study; its row is the lock that receiving and closing share."""

    __tablename__ = "studies"
    __table_args__ = ({"comment": "Studies received; the only table with patient identifiers"},)

    study_uid: Mapped[str] = uid_column("Study Instance UID (0020,000D)", primary_key=True)
    patient_id: Mapped[str] = text_column("Patient ID (0010,0020)")
    accession_number: Mapped[str] = text_column("Accession Number (0008,0050)")
    study_date: Mapped[str] = text_column("Study Date (0008,0020), YYYYMMDD")
    first_received_at: Mapped[datetime] = mapped_column(comment="Arrival of its first instance")


class Revision(Base):
    """One closing of a study: the unit that is queued, graded and reported."""

    __tablename__ = "revisions"
    __table_args__ = (
        UniqueConstraint("study_uid", "number"),
        CheckConstraint("number >= 1", name="number_from_one"),
        CheckConstraint("attempt >= 0", name="attempt_not_negative"),
        Index(None, "state", "last_received_at"),
        Index(None, "state", "lease_until"),
        {"comment": "Study revisions and their state; a late instance opens the next one"},
    )

    id: Mapped[str] = mapped_column(
        String(32), primary_key=True, comment="Opaque id (UUID, hex); all that the broker sees"
    )
    study_uid: Mapped[str] = uid_column("Study", ForeignKey("studies.study_uid"))
    number: Mapped[int] = mapped_column(comment="1 for the first closing, then 2, 3, …")
    state: Mapped[RevisionState] = mapped_column(
        text_enum(RevisionState, "state"), comment="Where the revision stands"
    )
    state_since: Mapped[datetime] = mapped_column(comment="When it came to that state")
    opened_at: Mapped[datetime] = mapped_column(comment="Arrival of the instance that opened it")
    last_received_at: Mapped[datetime] = mapped_column(
        comment="Latest arrival of any of its instances; the quiet period starts here"
    )
    attempt: Mapped[int] = mapped_column(default=0, comment="Attempts charged so far")
    token: Mapped[int] = mapped_column(
        default=0, comment="Fencing token: number of the latest claim; older claims change nothing"
    )
    lease_until: Mapped[datetime | None] = mapped_column(
        comment="When the worker that processes it counts as lost"
    )
    not_before: Mapped[datetime | None] = mapped_column(comment="No attempt before this moment")
    reason: Mapped[str | None] = mapped_column(
        comment="Code of the rejection, of the failure, or of the latest interrupted attempt"
    )
    reason_detail: Mapped[str | None] = mapped_column(comment="The figures behind the code")
    delivered_at: Mapped[datetime | None] = mapped_column(
        comment="When the last destination had its results"
    )


class Instance(Base):
    """One SOP instance on disk."""

    __tablename__ = "instances"
    __table_args__ = ({"comment": "SOP instances received and kept in the spool"},)

    sop_instance_uid: Mapped[str] = uid_column("SOP Instance UID (0008,0018)", primary_key=True)
    study_uid: Mapped[str] = uid_column("Study", ForeignKey("studies.study_uid"), index=True)
    first_revision_id: Mapped[str] = revision_key("First revision that contains it", index=True)
    series_uid: Mapped[str] = uid_column("Series Instance UID (0020,000E)")
    sop_class_uid: Mapped[str] = uid_column("SOP Class UID (0008,0016)")
    transfer_syntax_uid: Mapped[str] = uid_column("Transfer Syntax UID (0002,0010)")
    modality: Mapped[str] = text_column("Modality (0008,0060)")
    path: Mapped[str] = text_column("Part 10 file in the spool")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the file")
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file")
    calling_ae: Mapped[str] = text_column("Calling AE title of the sender")
    peer_address: Mapped[str] = text_column("Address of the sender")
    received_at: Mapped[datetime] = mapped_column(comment="When it was safe on disk")


class QuarantinedInstance(Base):
    """An instance that contradicts what is known of its SOP Instance UID or of its study."""

    __tablename__ = "quarantined_instances"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "sha256"),
        {"comment": "Instances that contradict one received before; kept, never graded"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, comment="Number of the row")
    reason: Mapped[str] = mapped_column(
        String(16),
        server_default="conflict",
        comment="conflict: UID known with other content; other-patient: not that of its study",
    )
    sop_instance_uid: Mapped[str] = uid_column("SOP Instance UID that it claims")
    study_uid: Mapped[str] = uid_column("Study that it claims to belong to")
    series_uid: Mapped[str] = uid_column("Series that it claims to belong to")
    path: Mapped[str] = text_column("Part 10 file in the spool")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the file")
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file")
    calling_ae: Mapped[str] = text_column("Calling AE title of the sender")
    peer_address: Mapped[str] = text_column("Address of the sender")
    received_at: Mapped[datetime] = mapped_column(comment="When it was safe on disk")
