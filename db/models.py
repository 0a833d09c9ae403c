"""The tables: one row type for each thing that the node received, decided, made or sent.

Patient identifiers live in `Study` and nowhere else. Revisions of a study share its instances:
revision n consists of every instance whose first revision is numbered n or lower.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.columns import UID_LENGTH, DeliveryState, JsonObject, StudyState, UtcDateTime, text_enum


class Base(DeclarativeBase):
    """Names every constraint, so that later migrations can address it on both dialects."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, str: Text}  # noqa: RUF012 - SQLAlchemy's interface


def _uid(comment: str, *args: Any, **options: Any) -> Mapped[str]:
    return mapped_column(String(UID_LENGTH), *args, comment=comment, **options)


def _revision_key(comment: str = "Revision that this belongs to", **options: Any) -> Mapped[str]:
    return mapped_column(String(32), ForeignKey("revisions.id"), comment=comment, **options)


def _text(comment: str) -> Mapped[str]:
    return mapped_column(Text, comment=comment)


# --- What was received --------------------------------------------------------------------------
class Study(Base):
    """One DICOM study; its row is the lock that receiving and closing share."""

    __tablename__ = "studies"
    __table_args__ = ({"comment": "Studies received; the only table with patient identifiers"},)

    study_uid: Mapped[str] = _uid("Study Instance UID (0020,000D)", primary_key=True)
    patient_id: Mapped[str] = _text("Patient ID (0010,0020)")
    accession_number: Mapped[str] = _text("Accession Number (0008,0050)")
    study_date: Mapped[str] = _text("Study Date (0008,0020), YYYYMMDD")
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
    study_uid: Mapped[str] = _uid("Study", ForeignKey("studies.study_uid"))
    number: Mapped[int] = mapped_column(comment="1 for the first closing, then 2, 3, …")
    state: Mapped[StudyState] = mapped_column(
        text_enum(StudyState, "state"), comment="Where the revision stands"
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

    sop_instance_uid: Mapped[str] = _uid("SOP Instance UID (0008,0018)", primary_key=True)
    study_uid: Mapped[str] = _uid("Study", ForeignKey("studies.study_uid"), index=True)
    first_revision_id: Mapped[str] = _revision_key("First revision that contains it", index=True)
    series_uid: Mapped[str] = _uid("Series Instance UID (0020,000E)")
    sop_class_uid: Mapped[str] = _uid("SOP Class UID (0008,0016)")
    transfer_syntax_uid: Mapped[str] = _uid("Transfer Syntax UID (0002,0010)")
    modality: Mapped[str] = _text("Modality (0008,0060)")
    path: Mapped[str] = _text("Part 10 file in the spool")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the file")
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file")
    calling_ae: Mapped[str] = _text("Calling AE title of the sender")
    peer_address: Mapped[str] = _text("Address of the sender")
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
    sop_instance_uid: Mapped[str] = _uid("SOP Instance UID that it claims")
    study_uid: Mapped[str] = _uid("Study that it claims to belong to")
    series_uid: Mapped[str] = _uid("Series that it claims to belong to")
    path: Mapped[str] = _text("Part 10 file in the spool")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the file")
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file")
    calling_ae: Mapped[str] = _text("Calling AE title of the sender")
    peer_address: Mapped[str] = _text("Address of the sender")
    received_at: Mapped[datetime] = mapped_column(comment="When it was safe on disk")


# --- What was decided ---------------------------------------------------------------------------
class SeriesVerdictRow(Base):
    """Why one series was graded or passed over."""

    __tablename__ = "series_verdicts"
    __table_args__ = ({"comment": "What selection decided about each series of a revision"},)

    revision_id: Mapped[str] = _revision_key(primary_key=True)
    series_uid: Mapped[str] = _uid("Series", primary_key=True)
    reason: Mapped[str] = mapped_column(String(32), comment="'selected' or why it was not")
    detail: Mapped[str] = _text("The figures behind the reason")
    n_instances: Mapped[int] = mapped_column(comment="Instances of the series")


class StageTimingRow(Base):
    """How long one pipeline stage took."""

    __tablename__ = "stage_timings"
    __table_args__ = ({"comment": "Wall-clock time of each pipeline stage"},)

    revision_id: Mapped[str] = _revision_key(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, comment="Order of the stages, from 0")
    stage: Mapped[str] = _text("Name of the stage")
    seconds: Mapped[float] = mapped_column(comment="Wall-clock seconds")


class ModelVersion(Base):
    """One set of weights that graded something."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("name", "version", "weights_sha256"),
        {"comment": "Model versions that took part in grades"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, comment="Number of the row")
    name: Mapped[str] = _text("Name in the model repository")
    version: Mapped[str] = _text("Version folder in the model repository")
    weights_sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the weights file")
    display_name: Mapped[str] = _text("Name for people, as in the SR")
    training_data: Mapped[str] = _text("'synthetic' or what the model card says")


class GradeRow(Base):
    """The grade of one revision."""

    __tablename__ = "grades"
    __table_args__ = (
        CheckConstraint("rating BETWEEN 0 AND 4", name="rating_0_to_4"),
        CheckConstraint("majority_rating BETWEEN 0 AND 4", name="majority_rating_0_to_4"),
        {"comment": "Grades of enlarged perivascular spaces in the basal ganglia"},
    )

    revision_id: Mapped[str] = _revision_key(primary_key=True)
    series_uid: Mapped[str] = _uid("Series that was graded")
    rating: Mapped[int] = mapped_column(comment="Highest rating of the six images, 0 to 4")
    majority_rating: Mapped[int] = mapped_column(comment="Most frequent rating of the six images")
    count_range: Mapped[str] = mapped_column(String(8), comment="EPVS count behind the rating")
    confidence: Mapped[float] = mapped_column(comment="Probability of the rating, 0 to 1")
    severity: Mapped[str] = mapped_column(
        String(32), comment="'none-to-mild' or 'moderate-to-severe'"
    )
    severity_probability: Mapped[float] = mapped_column(comment="P(at least ten EPVS), 0 to 1")
    models_agree: Mapped[bool] = mapped_column(
        comment="Rating of at least 2 exactly when severity is moderate-to-severe"
    )
    rating_model_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), index=True, comment="Model that gave the rating"
    )
    severity_model_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), index=True, comment="Model that gave the severity"
    )
    box_correlation: Mapped[float] = mapped_column(
        comment="Registration quality: correlation with the template around the basal ganglia"
    )
    brain_correlation: Mapped[float] = mapped_column(
        comment="Registration quality: correlation with the template over the brain"
    )
    coverage: Mapped[float] = mapped_column(
        comment="Registration quality: share of the box inside the scan"
    )
    scale: Mapped[float] = mapped_column(comment="Registration quality: scale of the affine")
    saliency_mean: Mapped[float] = mapped_column(comment="Mean activation, 0 to 10")
    saliency_skewness: Mapped[float] = mapped_column(comment="Skewness of the activation")
    saliency_share_above_7: Mapped[float] = mapped_column(comment="Share of activation above 7")
    saliency_share_in_basal_ganglia: Mapped[float] = mapped_column(
        comment="Share of the activation inside the basal ganglia"
    )
    summary: Mapped[str] = _text("The report as readable text, without patient data")
    caveat: Mapped[str] = _text("What was said about the use of this grade; empty: nothing")
    graded_at: Mapped[datetime] = mapped_column(comment="When the grade was stored")


class ImageRatingRow(Base):
    """The grade of one of the six basal-ganglia images."""

    __tablename__ = "image_ratings"
    __table_args__ = (
        CheckConstraint("rating BETWEEN 0 AND 4", name="rating_0_to_4"),
        {"comment": "Ratings of the six images behind a grade"},
    )

    revision_id: Mapped[str] = mapped_column(
        String(32), ForeignKey("grades.revision_id"), primary_key=True, comment="Grade"
    )
    level: Mapped[str] = mapped_column(
        String(16), primary_key=True, comment="inferior, middle or superior"
    )
    side: Mapped[str] = mapped_column(String(1), primary_key=True, comment="Patient's side: L or R")
    slice_index: Mapped[int] = mapped_column(comment="Slice of the series, from 0, inferior first")
    sop_instance_uid: Mapped[str] = _uid("Image that was rated")
    frame_number: Mapped[int | None] = mapped_column(comment="Frame of an Enhanced MR, from 1")
    rating: Mapped[int] = mapped_column(comment="Rating of the image, 0 to 4")
    probability: Mapped[float] = mapped_column(comment="Probability of that rating, 0 to 1")


# --- What was made and sent ---------------------------------------------------------------------
class ReportObjectRow(Base):
    """One DICOM object of a report; its exact bytes are kept on disk before it is sent."""

    __tablename__ = "report_objects"
    __table_args__ = (
        UniqueConstraint("revision_id", "sop_instance_uid"),
        {"comment": "DICOM objects made for a revision"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, comment="Number of the row")
    revision_id: Mapped[str] = _revision_key()
    position: Mapped[int] = mapped_column(comment="Order of sending, from 0")
    kind: Mapped[str] = mapped_column(String(2), comment="sr, sc or pm")
    sop_class_uid: Mapped[str] = _uid("SOP Class UID")
    sop_instance_uid: Mapped[str] = _uid("SOP Instance UID", index=True)
    series_uid: Mapped[str] = _uid("Series Instance UID")
    transfer_syntax_uid: Mapped[str] = _uid("Transfer Syntax UID")
    path: Mapped[str] = _text("Part 10 file with the exact bytes")
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
    revision_id: Mapped[str] = _revision_key()
    destination: Mapped[str] = _text("AE@host:port")
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


# --- What remains to be done, and what happened -------------------------------------------------
class OutboxRow(Base):
    """A doorbell to ring; the row exists as long as its target waits for a worker."""

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
    ring_at: Mapped[datetime] = mapped_column(index=True, comment="When to ring (again)")
    rung: Mapped[int] = mapped_column(default=0, comment="How often it was rung")


class AuditEvent(Base):
    """One link of the audit chain; never changed, never removed."""

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
    event: Mapped[str] = mapped_column(String(64), comment="A study state, or what else happened")
    study_uid: Mapped[str | None] = mapped_column(String(UID_LENGTH), comment="Study concerned")
    revision_id: Mapped[str | None] = mapped_column(String(32), comment="Revision concerned")
    detail: Mapped[JsonObject] = mapped_column(JSON, comment="UIDs, codes and numbers only")
    previous_hash: Mapped[str] = mapped_column(String(64), comment="Hash of the event before")
    hash: Mapped[str] = mapped_column(
        String(64), comment="SHA-256 over this event and the hash of the one before"
    )


class AuditHead(Base):
    """Where the chain ends, so that a removed end shows."""

    __tablename__ = "audit_head"
    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        {"comment": "Newest audit event; one row"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="Always 1")
    seq: Mapped[int] = mapped_column(BigInteger, comment="Number of the newest event")
    hash: Mapped[str] = mapped_column(String(64), comment="Its hash")
