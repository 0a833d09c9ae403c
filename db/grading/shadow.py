"""Shadow results, in the database: stored beside the grade that was reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from core.results import ShadowFailure, ShadowRating, ShadowSeverity
from db import audit
from db.grading.results import find_model
from db.models import Revision, ShadowGrade, ShadowImageRating

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from core.results import ImageRating, ShadowResult


def store_shadow(
    session: Session, revision_id: str, shadows: Sequence[ShadowResult], *, now: datetime
) -> None:
    """Store what shadow versions predicted for a graded revision, or why they did not."""
    for shadow in shadows:
        row = ShadowGrade(
            revision_id=revision_id,
            model=shadow.model,
            version=shadow.version,
            seconds=shadow.seconds,
            graded_at=now,
        )
        detail = {"model": shadow.model, "version": shadow.version}
        match shadow.outcome:
            case ShadowFailure(code, message):
                row.failure, row.failure_detail = code, message
                detail["code"] = code
            case ShadowRating(identity, images, rating, majority_rating, probability):
                row.model_version_id = find_model(session, identity)
                row.rating, row.majority_rating = rating, majority_rating
                row.probability = probability
                session.add_all(_shadow_image(revision_id, image) for image in images)
                detail["weights_sha256"] = identity.weights_sha256
            case ShadowSeverity(identity, severity, probability):
                row.model_version_id = find_model(session, identity)
                row.severity, row.probability = severity, probability
                detail["weights_sha256"] = identity.weights_sha256
        session.add(row)
        study_uid = session.scalars(
            select(Revision.study_uid).where(Revision.id == revision_id)
        ).one()
        audit.append(
            session,
            "shadow-failed" if "code" in detail else "shadow-graded",
            study_uid=study_uid,
            revision_id=revision_id,
            detail=detail,
            now=now,
        )


def _shadow_image(revision_id: str, image: ImageRating) -> ShadowImageRating:
    return ShadowImageRating(
        revision_id=revision_id,
        level=image.crop.level,
        side=image.crop.side,
        rating=image.rating,
        probability=image.probability,
    )
