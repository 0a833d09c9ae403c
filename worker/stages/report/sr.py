"""Reporting: the DICOM SR (TID 1500 Measurement Report) of one graded study revision."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    TextContentItem,
)
from highdicom.sr import RelationshipTypeValues as Relationship
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from core.records import Grade, ObjectKind, ReportObject, Severity
from core.version import CAVEAT, MANUFACTURER, NAME, VERSION
from worker.stages.report import codes
from worker.stages.report.document import SERIES_NUMBER, Case, finish, series_uid_of_report
from worker.stages.report.library import image_library
from worker.stages.report.measurements import image_group, severity_group, subject_group

SRClass = Literal["comprehensive", "comprehensive3d"]

_CLASSES: Final = {
    "comprehensive": (ComprehensiveSR, ComprehensiveSRStorage),
    "comprehensive3d": (Comprehensive3DSR, Comprehensive3DSRStorage),
}


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
    uid = case.uid("sr-instance", sr=sr, parametric_map=map_uids)
    make, sop_class_uid = _CLASSES[sr]
    document = make(
        evidence=_evidence(case, parametric_map),
        content=_content(case, map_uids)[0],
        series_instance_uid=series_uid_of_report(uid),
        series_number=SERIES_NUMBER[ObjectKind.STRUCTURED_REPORT],
        sop_instance_uid=uid,
        instance_number=1,
        # Complete, but no person has verified it, and a later revision may replace it.
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=_predecessors(case, sop_class_uid) or None,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                codes.SCHEME,
                name=codes.SCHEME_NAME,
                version=codes.SCHEME_VERSION,
                responsible_organization=MANUFACTURER,
            )
        ],
        **case.equipment,
    )
    report = finish(document, ObjectKind.STRUCTURED_REPORT, case)
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


def _content(case: Case, parametric_map: tuple[str, str] | None) -> MeasurementReport:
    report = MeasurementReport(
        title=codes.REPORT_TITLE,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept.from_code(codes.ENGLISH)
        ),
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                observer_type=CodedConcept.from_code(codes.DEVICE_OBSERVER),
                observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                    uid=case.device_uid,
                    name=f"{NAME} {VERSION}",
                    manufacturer_name=MANUFACTURER,
                    model_name=NAME,
                    serial_number=case.station_name,
                ),
            )
        ),
        procedure_reported=codes.MRI_PROCEDURE,
        imaging_measurements=[
            subject_group(case),
            *(image_group(case, image) for image in case.grade.images),
            severity_group(case, parametric_map),
        ],
    )
    # The template's order: image library, imaging measurements, qualitative evaluations.
    content = report[0].ContentSequence
    content.insert(len(content) - 1, image_library(case.source, case.volume.series))
    content.append(_qualitative_evaluations(case.grade))
    return report


def _qualitative_evaluations(grade: Grade) -> ContainerContentItem:
    """TID 1500 rows 12 to 14; highdicom has no argument for them."""
    container = ContainerContentItem(
        codes.QUALITATIVE_EVALUATIONS, relationship_type=Relationship.CONTAINS
    )
    container.ContentSequence = ContentSequence(
        [
            CodeContentItem(
                codes.AGREEMENT,
                codes.AGREE if grade.models_agree else codes.DISAGREE,
                Relationship.CONTAINS,
            ),
            TextContentItem(codes.INTENDED_USE, CAVEAT, Relationship.CONTAINS),
            # Viewers may show the conclusion alone: the caveat belongs to it.
            TextContentItem(
                codes.CONCLUSION, f"{conclusion(grade)} {CAVEAT}", Relationship.CONTAINS
            ),
        ]
    )
    return container


def _evidence(case: Case, parametric_map: ReportObject | None) -> list[Dataset]:
    """Every object that the content refers to, without any patient data."""
    evidence = [
        _reference(case, image.sop_class_uid, image.sop_instance_uid, case.volume.series.series_uid)
        for image in case.source.images
    ]
    if parametric_map is not None:
        evidence.append(
            _reference(
                case,
                parametric_map.sop_class_uid,
                parametric_map.sop_instance_uid,
                parametric_map.series_uid,
            )
        )
    return evidence


def _predecessors(case: Case, sop_class_uid: str) -> list[Dataset]:
    """Name the reports that this one supersedes: those of its class, one of which an archive has.

    Only where there is none of its class, because a destination was set to another one since, is
    it those of the other.
    """
    superseded = case.study.superseded_reports
    of_class = [report for report in superseded if report[0] == sop_class_uid]
    return [
        _reference(case, class_uid, uid, series_uid_of_report(uid))
        for class_uid, uid in of_class or superseded
    ]


def _reference(case: Case, class_uid: str, instance_uid: str, series_uid: str) -> Dataset:
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID = class_uid, instance_uid
    item.StudyInstanceUID, item.SeriesInstanceUID = case.study.study_uid, series_uid
    # highdicom asks for these; `finish` writes the real ones.
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(item, keyword, None)
    for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(item, keyword, None)
    return item
