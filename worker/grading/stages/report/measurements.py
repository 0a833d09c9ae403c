"""Measurement groups of the SR (TID 1500 rows 6 to 10): ratings, severity and saliency.

One group states the rating of the subject, six state the rating of one image each, and one states
the severity. A group has a Finding only if EPVS are present, so that a search for findings does not
return patients in whom none were seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    FindingSite,
    ImageRegion,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurement,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)

from core.results import Crop, ImageRating, ModelIdentity, Severity
from core.version import MANUFACTURER
from worker.grading.stages.report import codes
from worker.grading.stages.report.context import CORNER_DECIMALS, GradedContext, rounded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom.sr.coding import Code

    from worker.grading.records import SourceImage

SUBJECT_RATING: Final = "EPVS-BG-SUBJECT-RATING"
SEVERITY: Final = "EPVS-BG-SEVERITY-3D"


def image_group_name(crop: Crop) -> str:
    """Return the Tracking Identifier of the group of one image, e.g. ``"EPVS-BG-MIDDLE-L"``."""
    return f"EPVS-BG-{crop.level.name}-{crop.side.value}"


def subject_group(context: GradedContext) -> MeasurementsAndQualitativeEvaluations:
    """Build the group of the subject: highest rating of the six images and majority rating."""
    grade = context.grade
    decisive = _source_of(context, next(i.crop for i in grade.images if i.rating == grade.rating))
    graded = {rating.crop.sop_instance_uid for rating in grade.images}
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(context, SUBJECT_RATING),
        finding_type=codes.EPVS if grade.rating else None,
        finding_sites=[FindingSite(codes.BASAL_GANGLIA, laterality=codes.BILATERAL)],
        algorithm_id=_rating_algorithm(context),
        qualitative_evaluations=[
            _presence(grade.rating),
            QualitativeEvaluation(codes.HIGHEST_RATING, codes.RATINGS[grade.rating]),
            QualitativeEvaluation(codes.MAJORITY_RATING, codes.RATINGS[grade.majority_rating]),
        ],
        measurements=[
            _number(
                codes.RATING_PROBABILITY,
                grade.confidence,
                images=[
                    SourceImageForMeasurement(decisive.sop_class_uid, decisive.sop_instance_uid)
                ],
            )
        ],
        source_images=_sources(i for i in context.source.images if i.sop_instance_uid in graded),
    )


def image_group(
    context: GradedContext, image: ImageRating
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Build the group of one of the six images: its rating and the rated rectangle (TID 1410)."""
    crop = image.crop
    source = _source_of(context, crop)
    frames = None if crop.frame_number is None else [crop.frame_number]
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(context, image_group_name(crop)),
        referenced_region=ImageRegion(
            "POLYLINE",
            _closed_outline(crop, source),
            SourceImageForRegion(source.sop_class_uid, source.sop_instance_uid, frames),
        ),
        finding_type=codes.EPVS if image.rating else None,
        finding_sites=[
            FindingSite(
                codes.BASAL_GANGLIA,
                laterality=codes.LATERALITY[crop.side],
                topographical_modifier=codes.LEVEL[crop.level],
            )
        ],
        algorithm_id=_rating_algorithm(context),
        measurements=[
            _number(
                codes.RATING_PROBABILITY,
                image.probability,
                images=[
                    SourceImageForMeasurement(source.sop_class_uid, source.sop_instance_uid, frames)
                ],
            )
        ],
        qualitative_evaluations=[
            _presence(image.rating),
            QualitativeEvaluation(codes.RATING, codes.RATINGS[image.rating]),
        ],
    )


def severity_group(
    context: GradedContext, parametric_map: tuple[str, str] | None
) -> MeasurementsAndQualitativeEvaluations:
    """Build the group of the severity model: class, probability and saliency statistics.

    Parameters
    ----------
    context : GradedContext
    parametric_map : tuple of str or None
        (SOP class UID, SOP instance UID) of the map that the statistics describe, if it is sent.
    """
    grade, saliency = context.grade, context.saliency.statistics
    first = context.source.images[0]
    map_images = [SourceImageForMeasurement(*parametric_map)] if parametric_map else None
    statistics = (
        (saliency.mean, codes.MEAN),
        (saliency.skewness, codes.SKEWNESS),
        (saliency.share_above_7, codes.SHARE_ABOVE_7),
        (saliency.share_in_basal_ganglia, codes.SHARE_IN_BASAL_GANGLIA),
    )
    is_severe = grade.severity is Severity.MODERATE_TO_SEVERE
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(context, SEVERITY),
        finding_type=codes.EPVS if is_severe else None,
        finding_sites=[FindingSite(codes.BASAL_GANGLIA, laterality=codes.BILATERAL)],
        algorithm_id=_algorithm(
            grade.severity_model,
            "input: T2-weighted volume in MNI space, 16 slices",
            "moderate-to-severe where the probability of at least 10 EPVS is 0.5 or more",
            "saliency: Grad-CAM of the last feature map inside the brain, 10 = its maximum there",
        ),
        measurements=[
            _number(
                codes.SEVERITY_PROBABILITY,
                grade.severity_probability,
                images=[SourceImageForMeasurement(first.sop_class_uid, first.sop_instance_uid)],
            ),
            *(
                _number(codes.GRAD_CAM, value, derivation=derivation, images=map_images)
                for value, derivation in statistics
                if math.isfinite(value)  # an empty saliency map has no skewness
            ),
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(codes.SEVERITY, codes.SEVERITIES[grade.severity])
        ],
        source_images=_sources(context.source.images),
    )


def _tracking(context: GradedContext, name: str) -> TrackingIdentifier:
    return TrackingIdentifier(uid=context.uid("tracking", group=name), identifier=name)


def _algorithm(model: ModelIdentity, *parameters: str) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=model.display_name,
        version=model.version,
        manufacturer=MANUFACTURER,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        parameters=[
            f"weights sha256: {model.weights_sha256}",
            f"training data: {model.training_data}",
            *parameters,
        ],
    )


def _rating_algorithm(context: GradedContext) -> AlgorithmIdentification:
    return _algorithm(
        context.grade.rating_model,
        "input: six images of the basal ganglia, 3 axial slices x 2 sides",
        "rating of the subject: the highest of the six images",
    )


def _presence(rating: int) -> QualitativeEvaluation:
    return QualitativeEvaluation(codes.EPVS, codes.PRESENT if rating else codes.ABSENT)


def _number(
    name: Code,
    value: float,
    *,
    derivation: Code | None = None,
    images: list[SourceImageForMeasurement] | None = None,
) -> Measurement:
    """Build a measurement; OHIF cannot read one that has neither a derivation nor an image."""
    return Measurement(
        name=name,
        value=rounded(value),
        unit=codes.NO_UNITS,
        derivation=derivation,
        referenced_images=images,
    )


def _sources(images: Iterable[SourceImage]) -> list[SourceImageForMeasurementGroup]:
    return [
        SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid)
        for image in images
    ]


def _source_of(context: GradedContext, crop: Crop) -> SourceImage:
    return next(i for i in context.source.images if i.sop_instance_uid == crop.sop_instance_uid)


def _closed_outline(crop: Crop, source: SourceImage) -> np.ndarray:
    r"""Return crop corners as SCOORD coordinates: (column, row), closed, inside the image.

    0\0 is the outer corner of the first pixel in an SCOORD (PS3.3 C.18.6.1.2), and its centre in a
    `Crop`.
    """
    corners = np.round(np.asarray(crop.corners_px, dtype=float), CORNER_DECIMALS) + 0.5
    corners = np.clip(corners, 0, (source.columns, source.rows))
    return np.vstack([corners, corners[:1]])
