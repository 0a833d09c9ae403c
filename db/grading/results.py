"""Grading, in the database: reading the study to grade, and storing the result.

Every write checks the fencing token: with a stale claim it changes nothing and returns False.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, or_, select

from core.errors import Failed
from core.results import (
    GradedStudy,
    ModelIdentity,
    NotGradedStudy,
    ObjectKind,
    Report,
    SeriesVerdict,
)
from core.studies import ClosedStudy, SpooledInstance
from db import audit
from db.delivery import planning
from db.enums import RevisionState
from db.grading.contents import instances_of
from db.grading.leases import Claim, hold
from db.models import (
    GradeRow,
    ImageRatingRow,
    Instance,
    ModelVersion,
    ReportObjectRow,
    Revision,
    SeriesVerdictRow,
    StageTimingRow,
)
from db.session import insert_or_ignore
from db.states import move

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from core.destinations import Destination


def load_closed_study(session: Session, revision_id: str) -> ClosedStudy:
    """Read the instances of a revision: all that the study had when the revision was closed.

    Raises
    ------
    Failed
        ``revision-unknown``: there is no such revision.
    """
    revision = session.get(Revision, revision_id)
    if revision is None:
        raise Failed("revision-unknown", f"There is no revision {revision_id}.")
    instances = session.scalars(
        instances_of(revision).order_by(Instance.series_uid, Instance.sop_instance_uid)
    )
    return ClosedStudy(
        study_uid=revision.study_uid,
        revision_id=revision.id,
        revision_number=revision.number,
        instances=tuple(
            SpooledInstance(
                Path(i.path), i.sop_instance_uid, i.sop_class_uid, i.series_uid, i.sha256
            )
            for i in instances
        ),
        superseded_reports=_find_superseded_reports(session, revision),
    )


def _find_superseded_reports(session: Session, revision: Revision) -> tuple[tuple[str, str], ...]:
    """Find the SRs of the newest earlier revision that has any.

    If that revision was not graded, only some destinations received its SRs. The others still have
    the SRs of the newest graded revision, so these are superseded too.
    """
    earlier = (
        Revision.study_uid == revision.study_uid,
        Revision.number < revision.number,
        ReportObjectRow.kind == ObjectKind.STRUCTURED_REPORT,
    )
    newest = (
        select(func.max(Revision.number))
        .join(ReportObjectRow, ReportObjectRow.revision_id == Revision.id)
        .where(*earlier)
    )
    newest_graded = newest.join(GradeRow, GradeRow.revision_id == Revision.id)
    rows = session.execute(
        select(ReportObjectRow.sop_class_uid, ReportObjectRow.sop_instance_uid)
        .join(Revision, Revision.id == ReportObjectRow.revision_id)
        .where(
            *earlier,
            or_(
                Revision.number == newest.scalar_subquery(),
                Revision.number == newest_graded.scalar_subquery(),
            ),
        )
        .order_by(Revision.number, ReportObjectRow.position)
    )
    return tuple((row.sop_class_uid, row.sop_instance_uid) for row in rows)


def store_graded(
    session: Session,
    claim: Claim,
    graded: GradedStudy,
    *,
    paths: Sequence[Path],
    destinations: Sequence[Destination],
    now: datetime,
) -> bool:
    """Store grade, verdicts, timings and report, and plan the deliveries of the report.

    Parameters
    ----------
    session : Session
    claim : Claim
    graded : GradedStudy
    paths : sequence of Path
        Files of ``graded.report.objects``, in the same order; durable already.
    destinations : sequence of Destination
        If there is none, the revision is delivered at once.
    now : datetime

    Returns
    -------
    bool
        False when the claim is stale; nothing was changed.
    """
    revision = hold(session, claim)
    if revision is None:
        return False
    _store_verdicts(session, revision.id, graded.verdicts)
    _store_timings(session, revision.id, graded)
    _store_grade(session, revision, graded, now)
    objects = _store_report(session, revision.id, graded.report, paths, destinations, now=now)
    revision.reason = revision.reason_detail = None  # of an earlier attempt
    move(
        session,
        revision,
        RevisionState.GRADED,
        now=now,
        detail={
            "rating": graded.grade.rating,
            "severity": graded.grade.severity,
            "objects": objects,
            "weights_sha256": [
                graded.grade.rating_model.weights_sha256,
                graded.grade.severity_model.weights_sha256,
            ],
        },
    )
    if not destinations:
        move(
            session, revision, RevisionState.DELIVERED, now=now, detail={"reason": "no destination"}
        )
    return True


def store_not_graded(
    session: Session,
    claim: Claim,
    not_graded: NotGradedStudy,
    *,
    paths: Sequence[Path] = (),
    destinations: Sequence[Destination] = (),
    now: datetime,
) -> bool:
    """Store why a study cannot be graded, and plan the deliveries of the report on that.

    Parameters
    ----------
    session : Session
    claim : Claim
    not_graded : NotGradedStudy
    paths : sequence of Path
        Files of ``not_graded.report.objects``, in the same order; durable already.
    destinations : sequence of Destination
        Only those that ask for reports on studies without a grade get one.
    now : datetime

    Returns
    -------
    bool
        False when the claim is stale; nothing was changed.
    """
    revision = hold(session, claim)
    if revision is None:
        return False
    _store_verdicts(session, revision.id, not_graded.verdicts)
    revision.reason, revision.reason_detail = not_graded.reason, not_graded.detail
    detail: dict[str, Any] = {"reason": not_graded.reason}
    report, failure = not_graded.report, not_graded.report_failure
    if report is not None:
        detail["objects"] = _store_report(
            session, revision.id, report, paths, destinations, now=now, not_graded=True
        )
    move(session, revision, RevisionState.REJECTED, now=now, detail=detail)
    if failure is not None:
        audit.append(
            session,
            "report-not-made",
            study_uid=revision.study_uid,
            revision_id=revision.id,
            detail={"code": failure.code, "why": failure.message},
            now=now,
        )
    return True


def _store_verdicts(session: Session, revision_id: str, verdicts: Iterable[SeriesVerdict]) -> None:
    session.add_all(
        SeriesVerdictRow(
            revision_id=revision_id,
            series_uid=verdict.series_uid,
            reason=verdict.reason,
            detail=verdict.detail,
            n_instances=verdict.n_instances,
        )
        for verdict in verdicts
    )


def _store_timings(session: Session, revision_id: str, graded: GradedStudy) -> None:
    session.add_all(
        StageTimingRow(
            revision_id=revision_id, position=position, stage=timing.stage, seconds=timing.seconds
        )
        for position, timing in enumerate(graded.timings)
    )


def _store_grade(session: Session, revision: Revision, graded: GradedStudy, now: datetime) -> None:
    grade, quality, saliency = graded.grade, graded.quality, graded.saliency
    session.add(
        GradeRow(
            revision_id=revision.id,
            series_uid=graded.series_uid,
            rating=grade.rating,
            majority_rating=grade.majority_rating,
            count_range=grade.count_range,
            confidence=grade.confidence,
            severity=grade.severity,
            severity_probability=grade.severity_probability,
            models_agree=grade.models_agree,
            rating_model_id=find_model(session, grade.rating_model),
            severity_model_id=find_model(session, grade.severity_model),
            box_correlation=quality.box_correlation,
            brain_correlation=quality.brain_correlation,
            coverage=quality.coverage,
            scale=quality.scale,
            saliency_mean=saliency.mean,
            saliency_skewness=saliency.skewness,
            saliency_share_above_7=saliency.share_above_7,
            saliency_share_in_basal_ganglia=saliency.share_in_basal_ganglia,
            summary=graded.report.summary,
            caveat=grade.intended_use.statement,
            graded_at=now,
            study_uid=revision.study_uid,
            seconds=sum(timing.seconds for timing in graded.timings),
        )
    )
    session.flush()  # the ratings refer to it
    session.add_all(
        ImageRatingRow(
            revision_id=revision.id,
            level=image.crop.level,
            side=image.crop.side,
            slice_index=image.crop.slice_index,
            sop_instance_uid=image.crop.sop_instance_uid,
            frame_number=image.crop.frame_number,
            rating=image.rating,
            probability=image.probability,
        )
        for image in grade.images
    )


def find_model(session: Session, model: ModelIdentity) -> int:
    """Return the id of the model version's row; create the row for the first grade."""
    find = select(ModelVersion.id).where(
        ModelVersion.name == model.name,
        ModelVersion.version == model.version,
        ModelVersion.weights_sha256 == model.weights_sha256,
    )
    known = session.scalar(find)
    if known is not None:
        return known
    session.execute(
        insert_or_ignore(session, ModelVersion).values(
            name=model.name,
            version=model.version,
            weights_sha256=model.weights_sha256,
            display_name=model.display_name,
            training_data=model.training_data,
        )
    )
    return session.scalars(find).one()


def _store_report(
    session: Session,
    revision_id: str,
    report: Report,
    paths: Sequence[Path],
    destinations: Sequence[Destination],
    *,
    now: datetime,
    not_graded: bool = False,
) -> list[str]:
    """Store the objects of a report and plan their deliveries; return their SOP Instance UIDs."""
    rows = [
        ReportObjectRow(
            revision_id=revision_id,
            position=position,
            kind=item.kind,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            series_uid=item.series_uid,
            transfer_syntax_uid=item.transfer_syntax_uid,
            path=str(path),
            sha256=hashlib.sha256(item.content).hexdigest(),
            size_bytes=len(item.content),
        )
        for position, (item, path) in enumerate(zip(report.objects, paths, strict=True))
    ]
    session.add_all(rows)
    session.flush()
    objects = list(zip(rows, report.objects, strict=True))
    planning.plan(session, revision_id, objects, destinations, now=now, not_graded=not_graded)
    return [row.sop_instance_uid for row in rows]
