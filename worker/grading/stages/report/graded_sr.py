"""SR on a graded study revision (TID 1500 Measurement Report)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import CodeContentItem, ContainerContentItem, ContentSequence
from highdicom.sr import RelationshipTypeValues as Relationship

from core.results import Grade, ReportObject, Severity
from worker.grading.stages.report import codes
from worker.grading.stages.report.image_library import image_library
from worker.grading.stages.report.measurements import image_group, severity_group, subject_group
from worker.grading.stages.report.sr_document import (
    evidence_item,
    qualitative_evaluations,
    write_sr,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from core.results import SRVariant
    from worker.grading.stages.report.context import GradedContext


def build_graded_sr(
    context: GradedContext, variant: SRVariant, parametric_map: ReportObject | None
) -> ReportObject:
    """Build one variant of the SR.

    Parameters
    ----------
    context : GradedContext
    variant : SRVariant
    parametric_map : ReportObject or None
        The saliency map of this report. A variant without the map ignores it.

    Notes
    -----
    The map is the only other report object to which an SR refers. A variant without the map
    therefore has no dangling reference in an archive that receives only SR and pictures.
    """
    if not variant.parametric_map:
        parametric_map = None
    map_uids = None
    if parametric_map is not None:
        map_uids = (parametric_map.sop_class_uid, parametric_map.sop_instance_uid)
    agreement = codes.AGREE if context.grade.models_agree else codes.DISAGREE
    return write_sr(
        context,
        variant,
        uid=context.uid("sr-instance", sr=variant.sr_class, parametric_map=map_uids),
        sections=[
            image_library(context.source, context.volume.series),
            _imaging_measurements(context, map_uids),
            qualitative_evaluations(
                context,
                [CodeContentItem(codes.AGREEMENT, agreement, Relationship.CONTAINS)],
                conclusion(context.grade),
            ),
        ],
        evidence=_evidence(context, parametric_map),
    )


def conclusion(grade: Grade) -> str:
    """Return the sentences of the conclusion: rating, severity and their agreement."""
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
    context: GradedContext, parametric_map: tuple[str, str] | None
) -> ContainerContentItem:
    container = ContainerContentItem(
        codes.IMAGING_MEASUREMENTS, relationship_type=Relationship.CONTAINS
    )
    container.ContentSequence = ContentSequence()
    for group in (
        subject_group(context),
        *(image_group(context, image) for image in context.grade.images),
        severity_group(context, parametric_map),
    ):
        container.ContentSequence.extend(group)
    return container


def _evidence(context: GradedContext, parametric_map: ReportObject | None) -> list[Dataset]:
    """Return every object to which the content refers."""
    series_uid = context.volume.series.series_uid
    evidence = [
        evidence_item(context, image.sop_class_uid, image.sop_instance_uid, series_uid)
        for image in context.source.images
    ]
    if parametric_map is not None:
        pm = parametric_map
        evidence.append(
            evidence_item(context, pm.sop_class_uid, pm.sop_instance_uid, pm.series_uid)
        )
    return evidence
