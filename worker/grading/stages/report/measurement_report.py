"""Reporting: what every SR of this node has in common: TID 1500's frame, the document around it.

The frame is built here because highdicom's `MeasurementReport` takes imaging measurements alone,
and needs some: TID 1500 is content with qualitative evaluations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

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
    ObservationContext,
    ObserverContext,
    TextContentItem,
)
from highdicom.sr import RelationshipTypeValues as Relationship
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from core.results import ObjectKind, ReportObject
from core.version import CAVEAT, MANUFACTURER, NAME, VERSION
from worker.grading.stages.report import codes
from worker.grading.stages.report.document import (
    SERIES_NUMBER,
    BaseCase,
    finish,
    series_uid_of_report,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SRClass = Literal["comprehensive", "comprehensive3d"]

_CLASSES: Final = {
    "comprehensive": (ComprehensiveSR, ComprehensiveSRStorage),
    "comprehensive3d": (Comprehensive3DSR, Comprehensive3DSRStorage),
}


def write_sr(
    case: BaseCase,
    sr: SRClass,
    *,
    uid: str,
    sections: Iterable[ContainerContentItem],
    evidence: Sequence[Dataset],
    description: str | None = None,
) -> ReportObject:
    """Write an SR.

    Parameters
    ----------
    case : BaseCase
    sr : {"comprehensive", "comprehensive3d"}
        SOP class; the content is the same.
    uid : str
        SOP Instance UID.
    sections : iterable of ContainerContentItem
        In the template's order: image library, imaging measurements, qualitative evaluations.
    evidence : sequence of Dataset
        Every object that the content refers to, and what else the report rests on; at least one.
    description : str, optional
        Series Description, where it is not that of a grade.
    """
    make, sop_class_uid = _CLASSES[sr]
    document = make(
        evidence=evidence,
        content=_content(case, sections),
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
    return finish(document, ObjectKind.STRUCTURED_REPORT, case, description)


def qualitative_evaluations(
    evaluations: Iterable[CodeContentItem | TextContentItem], conclusion: str
) -> ContainerContentItem:
    """TID 1500 rows 12 to 14: evaluations, the intended use and the conclusion."""
    container = ContainerContentItem(
        codes.QUALITATIVE_EVALUATIONS, relationship_type=Relationship.CONTAINS
    )
    container.ContentSequence = ContentSequence(
        [
            *evaluations,
            TextContentItem(codes.INTENDED_USE, CAVEAT, Relationship.CONTAINS),
            # Viewers may show the conclusion alone: the caveat belongs to it.
            TextContentItem(codes.CONCLUSION, f"{conclusion} {CAVEAT}", Relationship.CONTAINS),
        ]
    )
    return container


def evidence_item(case: BaseCase, class_uid: str, instance_uid: str, series_uid: str) -> Dataset:
    """Name one object of the study as highdicom wants it, without any patient data."""
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID = class_uid, instance_uid
    item.StudyInstanceUID, item.SeriesInstanceUID = case.study.study_uid, series_uid
    # highdicom asks for these; `finish` writes the real ones.
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(item, keyword, None)
    for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(item, keyword, None)
    return item


def _content(case: BaseCase, sections: Iterable[ContainerContentItem]) -> ContainerContentItem:
    root = ContainerContentItem(codes.REPORT_TITLE, template_id="1500")
    root.ContentSequence = ContentSequence(
        [
            *LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH)),
            *ObservationContext(
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
            CodeContentItem(
                codes.PROCEDURE_REPORTED, codes.MRI_PROCEDURE, Relationship.HAS_CONCEPT_MOD
            ),
            *sections,
        ]
    )
    return root


def _predecessors(case: BaseCase, sop_class_uid: str) -> list[Dataset]:
    """Name the reports that this one supersedes: those of its class, one of which an archive has.

    Only where there is none of its class, because a destination was set to another one since, is
    it those of the other.
    """
    superseded = case.study.superseded_reports
    of_class = [report for report in superseded if report[0] == sop_class_uid]
    return [
        evidence_item(case, class_uid, uid, series_uid_of_report(uid))
        for class_uid, uid in of_class or superseded
    ]
