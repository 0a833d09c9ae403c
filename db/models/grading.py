"""Tables of grading results: verdicts on series, grades, stage timings, model versions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, revision_key, text_column, uid_column


class SeriesVerdictRow(Base):
    """The verdict on one series: selected, or why not."""

    __tablename__ = "series_verdicts"
    __table_args__ = ({"comment": "Verdict on each series of a revision"},)

    revision_id: Mapped[str] = revision_key(primary_key=True)
    series_uid: Mapped[str] = uid_column("Series", primary_key=True)
    reason: Mapped[str] = mapped_column(
        String(32), comment="'selected', or the code of the reason against it"
    )
    detail: Mapped[str] = text_column("The figures behind the reason")
    n_instances: Mapped[int] = mapped_column(comment="Instances of the series")


class StageTimingRow(Base):
    """Duration of one pipeline stage."""

    __tablename__ = "stage_timings"
    __table_args__ = ({"comment": "Wall-clock time of each pipeline stage"},)

    revision_id: Mapped[str] = revision_key(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, comment="Order of the stages, from 0")
    stage: Mapped[str] = text_column("Name of the stage")
    seconds: Mapped[float] = mapped_column(comment="Wall-clock seconds")


class ModelVersion(Base):
    """One set of weights that was used for a grade."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("name", "version", "weights_sha256"),
        {"comment": "Model versions used for grades"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, comment="Number of the row")
    name: Mapped[str] = text_column("Name in the model repository")
    version: Mapped[str] = text_column("Version folder in the model repository")
    weights_sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the weights file")
    display_name: Mapped[str] = text_column("Display name, as in the SR")
    training_data: Mapped[str] = text_column("'synthetic' or what the model card says")


class GradeRow(Base):
    """The grade of one revision."""

    __tablename__ = "grades"
    __table_args__ = (
        CheckConstraint("rating BETWEEN 0 AND 4", name="rating_0_to_4"),
        CheckConstraint("majority_rating BETWEEN 0 AND 4", name="majority_rating_0_to_4"),
        # All that the view model_usage reads.
        Index(
            "ix_grades_of_rating_model",
            *("rating_model_id", "study_uid", "rating", "seconds", "graded_at"),
        ),
        Index(
            "ix_grades_of_severity_model",
            *("severity_model_id", "study_uid", "severity", "seconds", "graded_at"),
        ),
        {"comment": "Grades of enlarged perivascular spaces in the basal ganglia"},
    )

    revision_id: Mapped[str] = revision_key(primary_key=True)
    series_uid: Mapped[str] = uid_column("Series that was graded")
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
        ForeignKey("model_versions.id"), comment="Model that gave the rating"
    )
    severity_model_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), comment="Model that gave the severity"
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
    saliency_mean: Mapped[float] = mapped_column(comment="Mean activation over the brain, 0 to 10")
    saliency_skewness: Mapped[float] = mapped_column(
        comment="Skewness of the activation over the brain"
    )
    saliency_share_above_7: Mapped[float] = mapped_column(
        comment="Share of brain voxels with an activation above 7"
    )
    saliency_share_in_basal_ganglia: Mapped[float] = mapped_column(
        comment="Share of the activation inside the basal ganglia"
    )
    summary: Mapped[str] = text_column("The report as readable text, without patient data")
    caveat: Mapped[str] = text_column("Intended use stated in the report; empty if there is none")
    graded_at: Mapped[datetime] = mapped_column(comment="When the grade was stored")
    study_uid: Mapped[str] = uid_column("Study", server_default=text("''"))
    seconds: Mapped[float | None] = mapped_column(
        comment="Wall-clock seconds of the pipeline; NULL: removed before they were kept here"
    )


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
    sop_instance_uid: Mapped[str] = uid_column("Image that was rated")
    frame_number: Mapped[int | None] = mapped_column(comment="Frame of an Enhanced MR, from 1")
    rating: Mapped[int] = mapped_column(comment="Rating of the image, 0 to 4")
    probability: Mapped[float] = mapped_column(comment="Probability of that rating, 0 to 1")
