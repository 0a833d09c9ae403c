"""What the command line reads: the list of studies, and everything known about one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from core.errors import EpvsError
from db.models import (
    AuditEvent,
    Base,
    Delivery,
    GradeRow,
    ImageRatingRow,
    Instance,
    ReportObjectRow,
    Revision,
    SeriesVerdictRow,
    StageTimingRow,
    Study,
)
from db.views import read_view

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def list_studies(session: Session, status: str | None = None) -> list[dict[str, Any]]:
    """Read the view ``worklist_results``, for one status or for all."""
    return read_view(session, "worklist_results", **({"status": status} if status else {}))


def show_study(session: Session, study_uid: str) -> dict[str, Any]:
    """Read everything that is known about one study.

    Returns
    -------
    dict
        ``study`` (with ``n_instances``), ``revisions`` (each with ``verdicts``, ``timings``,
        ``grade`` (or None), ``image_ratings``, ``objects``, ``deliveries``) and ``events``: the
        columns of the tables by their names.

    Raises
    ------
    EpvsError
        There is no such study.
    """
    study = find_study(session, study_uid)
    revisions = session.scalars(
        select(Revision).where(Revision.study_uid == study_uid).order_by(Revision.number)
    ).all()
    events = session.scalars(
        select(AuditEvent).where(AuditEvent.study_uid == study_uid).order_by(AuditEvent.seq)
    )
    n_instances = session.scalar(
        select(func.count()).where(
            Instance.study_uid == study_uid, Instance.last_revision.is_(None)
        )
    )
    return {
        "study": {**_as_dict(study), "n_instances": n_instances},
        "revisions": [_describe(session, revision) for revision in revisions],
        "events": [_as_dict(event) for event in events],
    }


def find_study(session: Session, study_uid: str, *, lock: bool = False) -> Study:
    """Read a study, and lock its row if asked to.

    Raises
    ------
    EpvsError
        There is no such study.
    """
    statement = select(Study).where(Study.study_uid == study_uid)
    study = session.scalar(statement.with_for_update(key_share=True) if lock else statement)
    if study is None:
        raise EpvsError(
            f"Study {study_uid} is not known here.", "'epvs-node studies' lists those that are."
        )
    return study


def _describe(session: Session, revision: Revision) -> dict[str, Any]:
    def read(model: type[Any], *order: Any) -> list[dict[str, Any]]:
        rows = session.scalars(
            select(model).where(model.revision_id == revision.id).order_by(*order)
        )
        return [_as_dict(row) for row in rows]

    grade = session.get(GradeRow, revision.id)
    return {
        **_as_dict(revision),
        "verdicts": read(SeriesVerdictRow, SeriesVerdictRow.series_uid),
        "timings": read(StageTimingRow, StageTimingRow.position),
        "grade": _as_dict(grade) if grade else None,
        "image_ratings": read(ImageRatingRow, ImageRatingRow.level, ImageRatingRow.side),
        "objects": read(ReportObjectRow, ReportObjectRow.position),
        "deliveries": read(Delivery, Delivery.destination),
    }


def _as_dict(row: Base) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}
