"""Tables of the models in use: which version has which role, and what shadow versions predicted."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from db.enums import ModelRole
from db.models.base import Base, revision_key, text_column
from db.models.types import text_enum


class ModelAssignment(Base):
    """A version of a model took a role; the newest of a model and role holds. Rows never change."""

    __tablename__ = "model_assignments"
    __table_args__ = (
        {"comment": "Which version of a model was reported, and which in shadow, since when"},
    )

    model: Mapped[str] = mapped_column(
        String(32), primary_key=True, comment="Name in the model repository"
    )
    role: Mapped[ModelRole] = mapped_column(
        text_enum(ModelRole, "model_role"), primary_key=True, comment="reported or shadow"
    )
    number: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False, comment="1, 2, 3 … for a model and role"
    )
    version: Mapped[str | None] = mapped_column(
        String(16), comment="Version folder; NULL: no version has the role any more"
    )
    back_to: Mapped[int | None] = mapped_column(
        comment="Number of the row to which a rollback goes; NULL: there is none"
    )
    since: Mapped[datetime] = mapped_column(comment="When it took the role")
    operator: Mapped[str] = text_column("Who decided; empty: the first worker, as nobody had")


class ShadowGrade(Base):
    """What a shadow version predicted for a graded study, or why it did not. Never reported."""

    __tablename__ = "shadow_grades"
    __table_args__ = (
        CheckConstraint("rating BETWEEN 0 AND 4", name="rating_0_to_4"),
        CheckConstraint("majority_rating BETWEEN 0 AND 4", name="majority_rating_0_to_4"),
        CheckConstraint("(failure IS NULL) = (model_version_id IS NOT NULL)", name="one_outcome"),
        {"comment": "Predictions of shadow versions; never part of a report"},
    )

    revision_id: Mapped[str] = revision_key(primary_key=True)
    model: Mapped[str] = mapped_column(
        String(32), primary_key=True, comment="Name in the model repository"
    )
    version: Mapped[str] = mapped_column(String(16), comment="Version folder")
    model_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("model_versions.id"), index=True, comment="Model that predicted"
    )
    rating: Mapped[int | None] = mapped_column(comment="Highest rating of the six images, 0 to 4")
    majority_rating: Mapped[int | None] = mapped_column(
        comment="Most frequent rating of the six images"
    )
    severity: Mapped[str | None] = mapped_column(
        String(32), comment="'none-to-mild' or 'moderate-to-severe'"
    )
    probability: Mapped[float | None] = mapped_column(
        comment="Of the rating; of at least ten EPVS for severity"
    )
    failure: Mapped[str | None] = mapped_column(
        String(64), comment="Code of the reason why there is no prediction"
    )
    failure_detail: Mapped[str | None] = mapped_column(comment="The reason in words")
    seconds: Mapped[float] = mapped_column(comment="Wall-clock seconds after the reported result")
    graded_at: Mapped[datetime] = mapped_column(comment="When it was stored")


class ShadowImageRating(Base):
    """What a shadow version predicted for one of the six basal-ganglia images."""

    __tablename__ = "shadow_image_ratings"
    __table_args__ = (
        CheckConstraint("rating BETWEEN 0 AND 4", name="rating_0_to_4"),
        {"comment": "Ratings of the six images by a shadow version; never part of a report"},
    )

    revision_id: Mapped[str] = revision_key(primary_key=True)
    level: Mapped[str] = mapped_column(
        String(16), primary_key=True, comment="inferior, middle or superior"
    )
    side: Mapped[str] = mapped_column(String(1), primary_key=True, comment="Patient's side: L or R")
    rating: Mapped[int] = mapped_column(comment="Rating of the image, 0 to 4")
    probability: Mapped[float] = mapped_column(comment="Probability of that rating, 0 to 1")
