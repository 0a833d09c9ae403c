"""Reporting: the DICOM SR (TID 1500 Measurement Report) of one graded study revision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from highdicom.sr import CodeContentItem, ContainerContentItem, ContentSequence
from highdicom.sr import RelationshipTypeValues as Relationship

from core.results import Grade, ReportObject, Severity
from worker.grading.stages.report import codes
from worker.grading.stages.report.library import image_library
from worker.grading.stages.report.measurement_report import (
    SRClass,
    evidence_item,
    qualitative_evaluations,
    write_sr,
)
from worker.grading.stages.report.measurements import image_group, severity_group, subject_group

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from worker.grading.stages.report.document import Case


def build_sr(case: Case, sr: SRClass, parametric_map: ReportObject | None) -> ReportObject:
    """Build the SR.

    Parameters
    ----------
    case : Case
    sr : {"comprehensive", "comprehensive3d"}
        SOP class; the content is the same.
    parametric_map : ReportObject, optional
        The saliency map that is sent with it.

    Notes
    -----
    Of the report's other objects the content and the evidence name the map alone, no picture: an
    SR without the map may be sent to whoever does not take it.
    """
    map_uids = None
    if parametric_map is not None:
        map_uids = (parametric_map.sop_class_uid, parametric_map.sop_instance_uid)
    agreement = codes.AGREE if case.grade.models_agree else codes.DISAGREE
    report = write_sr(
        case,
        sr,
        uid=case.uid("sr-instance", sr=sr, parametric_map=map_uids),
        sections=[
            image_library(case.source, case.volume.series),
            _imaging_measurements(case, map_uids),
            qualitative_evaluations(
                [CodeContentItem(codes.AGREEMENT, agreement, Relationship.CONTAINS)],
                conclusion(case.grade),
            ),
        ],
        evidence=_evidence(case, parametric_map),
    )
    return replace(report, refers_to=() if map_uids is None else (map_uids[1],))


def conclusion(grade: Grade) -> str:
    """Say the result in the sentences that a reader takes from the report."""
    if grade.rating == 0:
        rating = (
            "No enlarged perivascular spaces (EPVS) seen in the basal ganglia "
            "on the graded slices (rating 0 of 4)."
        )
    else:
        rating = (
            f"Enlarged perivascular spaces (EPVS) in the basal ganglia: rating {grade.rating} of 4 "
            f"({grade.count_range} EPVS), the highest of six images; "
            f"majority rating {grade.majority_rating}."
        )
    name = {
        Severity.NONE_TO_MILD: "none-to-mild",
        Severity.MODERATE_TO_SEVERE: "moderate-to-severe",
    }[grade.severity]
    severity = (
        f"Severity on the whole volume: {name}, "
        f"probability of at least 10 EPVS {grade.severity_probability:.2f}."
    )
    agreement = (
        "Rating and severity agree."
        if grade.models_agree
        else "Rating and severity DISAGREE: read the images."
    )
    return f"{rating} {severity} {agreement}"


def _imaging_measurements(
    case: Case, parametric_map: tuple[str, str] | None
) -> ContainerContentItem:
    container = ContainerContentItem(
        codes.IMAGING_MEASUREMENTS, relationship_type=Relationship.CONTAINS
    )
    container.ContentSequence = ContentSequence()
    for group in (
        subject_group(case),
        *(image_group(case, image) for image in case.grade.images),
        severity_group(case, parametric_map),
    ):
        container.ContentSequence.extend(group)
    return container


def _evidence(case: Case, parametric_map: ReportObject | None) -> list[Dataset]:
    """Every object that the content refers to."""
    series_uid = case.volume.series.series_uid
    evidence = [
        evidence_item(case, image.sop_class_uid, image.sop_instance_uid, series_uid)
        for image in case.source.images
    ]
    if parametric_map is not None:
        pm = parametric_map
        evidence.append(evidence_item(case, pm.sop_class_uid, pm.sop_instance_uid, pm.series_uid))
    return evidence
