"""SR document and TID 1500 root that the SRs on graded and not graded studies share.

The root is built here because highdicom's `MeasurementReport` requires imaging measurements and
accepts nothing else; TID 1500 itself allows qualitative evaluations alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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

from core.results import ObjectKind, ReportObject, SRClass
from core.version import MANUFACTURER, NAME, VERSION
from worker.grading.stages.report import codes
from worker.grading.stages.report.objects import SERIES_NUMBER, series_uid_of_sr, write_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from core.results import SRVariant
    from worker.grading.stages.report.context import ReportContext

_CLASSES: Final = {
    SRClass.COMPREHENSIVE: (ComprehensiveSR, ComprehensiveSRStorage),
    SRClass.COMPREHENSIVE_3D: (Comprehensive3DSR, Comprehensive3DSRStorage),
}


def write_sr(
    context: ReportContext,
    variant: SRVariant,
    *,
    uid: str,
    sections: Iterable[ContainerContentItem],
    evidence: Sequence[Dataset],
    description: str | None = None,
) -> ReportObject:
    """Build and encode an SR.

    Parameters
    ----------
    context : ReportContext
    variant : SRVariant
    uid : str
        SOP Instance UID.
    sections : iterable of ContainerContentItem
        In the template's order: image library, imaging measurements, qualitative evaluations.
    evidence : sequence of Dataset
        Every object that the content refers to and any other on which it is based; at least one.
    description : str, optional
        Series Description, if it is not that of a grade.
    """
    document_class, sop_class_uid = _CLASSES[variant.sr_class]
    document = document_class(
        evidence=evidence,
        content=_content(context, sections),
        series_instance_uid=series_uid_of_sr(uid),
        series_number=SERIES_NUMBER[ObjectKind.STRUCTURED_REPORT],
        sop_instance_uid=uid,
        instance_number=1,
        # Complete, but not verified by a person; a later revision may replace it.
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=_predecessors(context, sop_class_uid) or None,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                codes.SCHEME,
                name=codes.SCHEME_NAME,
                version=codes.SCHEME_VERSION,
                responsible_organization=MANUFACTURER,
            )
        ],
        **context.equipment,
    )
    return write_object(
        document,
        ObjectKind.STRUCTURED_REPORT,
        context,
        description=description,
        variant=variant,
    )


def qualitative_evaluations(
    context: ReportContext,
    evaluations: Iterable[CodeContentItem | TextContentItem],
    conclusion: str,
) -> ContainerContentItem:
    """Build TID 1500 rows 12 to 14: evaluations, intended use and conclusion."""
    statement = context.intended_use.statement
    container = ContainerContentItem(
        codes.QUALITATIVE_EVALUATIONS, relationship_type=Relationship.CONTAINS
    )
    container.ContentSequence = ContentSequence(
        [
            *evaluations,
            TextContentItem(codes.INTENDED_USE, statement, Relationship.CONTAINS),
            # Viewers may show the conclusion alone, so it repeats the intended use.
            TextContentItem(codes.CONCLUSION, f"{conclusion} {statement}", Relationship.CONTAINS),
        ]
    )
    return container


def evidence_item(
    context: ReportContext, class_uid: str, instance_uid: str, series_uid: str
) -> Dataset:
    """Describe one object of the study in the form that highdicom needs, without patient data."""
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID = class_uid, instance_uid
    item.StudyInstanceUID, item.SeriesInstanceUID = context.study.study_uid, series_uid
    # highdicom requires these attributes; `write_object` writes the real values.
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(item, keyword, None)
    for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(item, keyword, None)
    return item


def _content(
    context: ReportContext, sections: Iterable[ContainerContentItem]
) -> ContainerContentItem:
    root = ContainerContentItem(codes.REPORT_TITLE, template_id="1500")
    root.ContentSequence = ContentSequence(
        [
            *LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH)),
            *ObservationContext(
                observer_device_context=ObserverContext(
                    observer_type=CodedConcept.from_code(codes.DEVICE_OBSERVER),
                    observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                        uid=context.device_uid,
                        name=f"{NAME} {VERSION}",
                        manufacturer_name=MANUFACTURER,
                        model_name=NAME,
                        serial_number=context.station_name,
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


def _predecessors(context: ReportContext, sop_class_uid: str) -> list[Dataset]:
    """Return the SRs that this one supersedes: those of its SOP class, which its archive holds.

    If there is none of its class, because the destination has been set to another class since,
    those of the other class are named.
    """
    superseded = context.study.superseded_reports
    of_class = [report for report in superseded if report[0] == sop_class_uid]
    return [
        evidence_item(context, class_uid, uid, series_uid_of_sr(uid))
        for class_uid, uid in of_class or superseded
    ]
