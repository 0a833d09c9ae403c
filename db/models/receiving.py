"""Tables of received studies, their revisions and their instances."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.priorities import NORMAL
from db.enums import QuarantineReason, Resolution, RevisionState
from db.models.base import (
    Base,
    added_text_column,
    removed_column,
    revision_key,
    text_column,
    uid_column,
)
from db.models.types import StoredEnum, text_enum


class Study(Base):
    """One DICOM study; receiving and closing lock its row."""

    __tablename__ = "studies"
    __table_args__ = (
        Index(None, "files_removed_at", "first_received_at"),
        Index(None, "study_date"),
        Index(None, "patient_id"),
        {
            "comment": "Studies received; patient identifiers are here and in "
            "quarantined_instances only"
        },
    )

    study_uid: Mapped[str] = uid_column("Study Instance UID (0020,000D)", primary_key=True)
    patient_id: Mapped[str] = text_column("Patient ID (0010,0020)")
    accession_number: Mapped[str] = text_column("Accession Number (0008,0050)")
    study_date: Mapped[str] = text_column("Study Date (0008,0020), YYYYMMDD")
    first_received_at: Mapped[datetime] = mapped_column(comment="When its first instance arrived")
    calling_ae: Mapped[str] = added_text_column(
        "Calling AE title of the sender that opened the study"
    )
    peer_address: Mapped[str] = added_text_column("Address of that sender")
    identity_revision: Mapped[int] = mapped_column(
        server_default="1",
        comment="First revision of this patient: an operator may replace the identity",
    )
    issuer_of_patient_id: Mapped[str] = added_text_column("Issuer of Patient ID (0010,0021)")
    files_removed_at: Mapped[datetime | None] = mapped_column(
        comment="When the files of its instances were removed; NULL: it may have files"
    )


class Revision(Base):
    """One revision of a study: the unit that is queued, graded and reported."""

    __tablename__ = "revisions"
    __table_args__ = (
        UniqueConstraint("study_uid", "number"),
        CheckConstraint("number >= 1", name="number_from_one"),
        CheckConstraint("attempt >= 0", name="attempt_not_negative"),
        Index(None, "state", "last_received_at"),
        Index(None, "state", "lease_until"),
        Index(None, "opened_at"),
        Index(None, "report_removed_at", "state_since"),
        {"comment": "Study revisions; an instance that arrives after the closing opens the next"},
    )

    id: Mapped[str] = mapped_column(
        String(32),
        primary_key=True,
        comment="Opaque id (UUID, hex); all that is sent to the broker",
    )
    study_uid: Mapped[str] = uid_column("Study", ForeignKey("studies.study_uid"))
    number: Mapped[int] = mapped_column(
        comment="1 for the first revision of the study, then 2, 3, …"
    )
    state: Mapped[RevisionState] = mapped_column(
        text_enum(RevisionState, "state"), comment="State of the revision"
    )
    state_since: Mapped[datetime] = mapped_column(comment="When it entered that state")
    opened_at: Mapped[datetime] = mapped_column(comment="When the instance that opened it arrived")
    last_received_at: Mapped[datetime] = mapped_column(
        comment="When an instance of the study arrived last; the quiet period starts here"
    )
    attempt: Mapped[int] = mapped_column(default=0, comment="Attempts charged so far")
    token: Mapped[int] = mapped_column(
        default=0, comment="Fencing token: number of the latest claim"
    )
    lease_until: Mapped[datetime | None] = mapped_column(
        comment="When the lease of the processing worker expires"
    )
    not_before: Mapped[datetime | None] = mapped_column(comment="Earliest time of the next attempt")
    reason: Mapped[str | None] = mapped_column(
        comment="Reason code: why not graded, failed, or last interrupted"
    )
    reason_detail: Mapped[str | None] = mapped_column(comment="The figures behind the code")
    delivered_at: Mapped[datetime | None] = mapped_column(
        comment="When the last destination had the report"
    )
    priority: Mapped[int] = mapped_column(
        server_default=str(NORMAL),
        comment="1 (graded first) to 9; 5 without a rule of EPVS_PRIORITY_RULES",
    )
    abandoned_at: Mapped[datetime | None] = mapped_column(
        comment="When an operator accepted that it stays failed"
    )
    report_removed_at: Mapped[datetime | None] = mapped_column(
        comment="When the files of its report were removed, or set to be; NULL: they are there"
    )


class Instance(Base):
    """One received SOP instance."""

    __tablename__ = "instances"
    __table_args__ = ({"comment": "SOP instances received"},)

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
    received_at: Mapped[datetime] = mapped_column(comment="When it was durable on disk")
    last_revision: Mapped[int | None] = mapped_column(
        comment="Number of the last revision that contains it; NULL: all since its first"
    )
    removed_at: Mapped[datetime | None] = removed_column()
    restored_at: Mapped[datetime | None] = mapped_column(
        comment="When its file was received again after a removal"
    )


class QuarantinedInstance(Base):
    """An instance that contradicts an earlier one; kept apart until an operator decides."""

    __tablename__ = "quarantined_instances"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "sha256"),
        Index(None, "study_uid"),
        Index(None, "resolution", "removed_at"),
        {"comment": "Instances that contradict an earlier one; kept apart from their study"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, comment="Number of the row")
    reason: Mapped[QuarantineReason] = mapped_column(
        StoredEnum(QuarantineReason, 16),
        server_default=QuarantineReason.CONFLICT.value,
        comment="conflict: UID known, other content; other-patient, other-accession: not its "
        "study's; no-patient-id: Patient ID missing, and not the caller that opened the study",
    )
    sop_instance_uid: Mapped[str] = uid_column("SOP Instance UID that it claims")
    study_uid: Mapped[str] = uid_column("Study that it claims to belong to")
    series_uid: Mapped[str] = uid_column("Series that it claims to belong to")
    path: Mapped[str] = text_column("Part 10 file in the spool")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the file")
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file")
    calling_ae: Mapped[str] = text_column("Calling AE title of the sender")
    peer_address: Mapped[str] = text_column("Address of the sender")
    received_at: Mapped[datetime] = mapped_column(comment="When it was durable on disk")
    sop_class_uid: Mapped[str] = added_text_column("SOP Class UID (0008,0016)")
    transfer_syntax_uid: Mapped[str] = added_text_column("Transfer Syntax UID (0002,0010)")
    modality: Mapped[str] = added_text_column("Modality (0008,0060)")
    patient_id: Mapped[str] = added_text_column("Patient ID (0010,0020)")
    accession_number: Mapped[str] = added_text_column("Accession Number (0008,0050)")
    study_date: Mapped[str] = added_text_column("Study Date (0008,0020), YYYYMMDD")
    resolution: Mapped[Resolution | None] = mapped_column(
        StoredEnum(Resolution, 16),
        comment="accepted, discarded, or replaced by an accepted one; NULL: undecided",
    )
    removed_at: Mapped[datetime | None] = removed_column()
    issuer_of_patient_id: Mapped[str] = added_text_column("Issuer of Patient ID (0010,0021)")
