"""Records that the receiver and the pipeline pass to the database, for a fictitious patient."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.destinations import parse_dicom_destination, sr_variant
from core.reasons import Reason
from core.results import (
    Crop,
    Grade,
    GradedStudy,
    ImageRating,
    IntendedUse,
    Level,
    ModelIdentity,
    NotGradedStudy,
    ObjectKind,
    RegistrationQuality,
    Report,
    ReportIdentity,
    ReportObject,
    SaliencyStatistics,
    SeriesVerdict,
    Severity,
    Side,
    SRClass,
    SRVariant,
    StageTiming,
)
from core.studies import ReceivedInstance
from db.grading.leases import Claim, claim_revision
from db.grading.results import store_graded, store_not_graded
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import record_instances

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

T0 = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
STUDY = "1.2.840.99.1"
INTENDED_USE = IntendedUse("Made-up models of the tests; for no use at all.", research_only=True)
PACS = parse_dicom_destination("PACS@127.0.0.1:4242")
ARCHIVE = parse_dicom_destination("ARCHIVE@127.0.0.1:4243?sc=0&pm=1&sr=comprehensive3d")
SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.33"
SR3D_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
STUDY_ROW: dict[str, Any] = {
    "study_uid": STUDY,
    "patient_id": "CANARY-7",
    "accession_number": "",
    "study_date": "",
    "first_received_at": T0,
}
"""Row of `studies`, for tests that insert one themselves."""
IDENTITY = ReportIdentity(STUDY, "CANARY-7", "A1")
"""What a report on the study states."""


def after(seconds: float) -> datetime:
    """Time `seconds` after the first instance arrived."""
    return T0 + timedelta(seconds=seconds)


def instance(number: int, *, study: str = STUDY, content: str = "", **changes: Any) -> Any:
    """Instance `number` of a study; different `content` means different bytes."""
    uid = f"{study}.5.{number}"
    values: dict[str, Any] = {
        "study_uid": study,
        "series_uid": f"{study}.5",
        "sop_instance_uid": uid,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "path": Path(f"/spool/{uid}.dcm"),
        "sha256": hashlib.sha256(f"{uid}{content}".encode()).hexdigest(),
        "size_bytes": 300_000,
        "calling_ae": "SCANNER",
        "peer_address": "192.0.2.10",
        "received_at": T0,
        "patient_id": "CANARY-7",
        "accession_number": "A1",
        "study_date": "20260301",
        "modality": "MR",
    }
    return ReceivedInstance(**(values | changes))


def queue_study(
    session: Session,
    *,
    study: str = STUDY,
    n: int = 3,
    at: float = 0.0,
    first: Iterable[ReceivedInstance] = (),
) -> str:
    """Receive a study at `at` and close it 30 s later; return the queued revision's id.

    Its instances are `first` and those numbered 1 to `n`.
    """
    numbered = [instance(k, study=study, received_at=after(at)) for k in range(1, n + 1)]
    record_instances(session, [*first, *numbered])
    (revision_id,) = close_quiet_studies(
        session, now=after(at + 30), quiet_period_s=0, max_open_s=5400
    )
    return revision_id


def claim(session: Session, revision_id: str, *, at: float = 31.0) -> Claim:
    """Claim a queued revision for 60 s."""
    result = claim_revision(session, revision_id, now=after(at), lease_s=60, max_attempts=3)
    assert result is not None
    return result


def model(name: str) -> ModelIdentity:
    """Identity of a model like the shipped ones."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return ModelIdentity(name, "1", digest, name, "synthetic", INTENDED_USE)


def report_object(
    kind: ObjectKind, sop_class_uid: str, uid: str, variant: SRVariant | None = None
) -> ReportObject:
    """An object of a report; its bytes are its UID."""
    syntax = "1.2.840.10008.1.2.1"
    return ReportObject(kind, sop_class_uid, uid, f"{uid}.1", syntax, uid.encode(), variant)


def report_srs(uid: str, variants: Iterable[SRVariant], first: int = 3) -> list[ReportObject]:
    """One SR for each variant, numbered from `first`."""
    classes = {SRClass.COMPREHENSIVE: SR_CLASS, SRClass.COMPREHENSIVE_3D: SR3D_CLASS}
    return [
        report_object(
            ObjectKind.STRUCTURED_REPORT, classes[variant.sr_class], f"{uid}.{number}", variant
        )
        for number, variant in enumerate(variants, first)
    ]


def graded_study(revision_id: str, *, rating: int = 2, uid: str = "2.25.1") -> GradedStudy:
    """Result of the pipeline: one picture, one map, an SR of either class."""
    crops = [Crop(level, side, 11, f"{STUDY}.5.1", None, ()) for level in Level for side in Side]
    return GradedStudy(
        revision_id=revision_id,
        series_uid=f"{STUDY}.5",
        verdicts=(
            SeriesVerdict(f"{STUDY}.5", Reason.SELECTED, "", 3),
            SeriesVerdict(f"{STUDY}.6", Reason.LOCALIZER, "3 orientations", 9),
        ),
        quality=RegistrationQuality(0.84, 0.55, 1.0, 1.02),
        grade=Grade(
            images=(
                ImageRating(crops[0], rating, 0.9),
                *(ImageRating(crop, min(rating, 1), 0.7) for crop in crops[1:]),
            ),
            rating=rating,
            majority_rating=min(rating, 1),
            confidence=0.9,
            severity=Severity.MODERATE_TO_SEVERE,
            severity_probability=0.8,
            models_agree=rating >= 2,
            rating_model=model("rating"),
            severity_model=model("severity"),
        ),
        saliency=SaliencyStatistics(1.5, 2.0, 0.01, 0.3),
        report=Report(
            (
                report_object(ObjectKind.PARAMETRIC_MAP, "1.2.840.10008.5.1.4.1.1.30", f"{uid}.1"),
                report_object(
                    ObjectKind.SECONDARY_CAPTURE, "1.2.840.10008.5.1.4.1.1.7", f"{uid}.2"
                ),
                *report_srs(uid, [sr_variant(PACS, graded=True), sr_variant(ARCHIVE, graded=True)]),
            ),
            summary="Rating 2",
            identity=IDENTITY,
        ),
        timings=(StageTiming("selection", 0.5), StageTiming("registration", 1.5)),
    )


def not_graded_study(
    revision_id: str, reason: Reason = Reason.NOT_A_T2_BRAIN, **changes: Any
) -> NotGradedStudy:
    """Result of the pipeline for a study that cannot be graded."""
    return NotGradedStudy(revision_id, reason, **({"detail": ""} | changes))


def grade_study(
    session: Session, revision_id: str, *destinations: Any, at: float = 40.0, **changes: Any
) -> None:
    """Claim a queued revision and store its grade."""
    held = claim(session, revision_id, at=at - 5)
    graded = graded_study(revision_id, **changes)
    paths = [Path(f"/reports/{o.sop_instance_uid}") for o in graded.report.objects]
    assert store_graded(
        session, held, graded, paths=paths, destinations=destinations, now=after(at)
    )


def reject_study(
    session: Session, revision_id: str, *destinations: Any, at: float = 40.0, uid: str = "2.25.9"
) -> None:
    """Claim a queued revision and store that it cannot be graded, with an SR of either class."""
    held = claim(session, revision_id, at=at - 5)
    report = Report(
        tuple(report_srs(uid, [SRVariant(sr_class, False) for sr_class in SRClass])),
        summary="Not graded",
        identity=IDENTITY,
    )
    assert store_not_graded(
        session,
        held,
        not_graded_study(revision_id, detail="correlation 0.1", report=report),
        paths=[Path(f"/reports/{o.sop_instance_uid}") for o in report.objects],
        destinations=destinations,
        now=after(at),
    )
