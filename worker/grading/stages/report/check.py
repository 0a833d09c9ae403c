"""Checks a report before delivery; one that fails is never sent.

The encoded bytes are read back, as the PACS will read them, and checked for anything misleading or
likely to be refused: missing content, malformed UIDs, dangling references. The test suite runs the
full validators.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Final

import pydicom
from pydicom.errors import InvalidDicomError

from core.errors import Failed
from core.results import ObjectKind, ReportObject
from worker.grading.stages.report import codes
from worker.grading.stages.report.content_tree import is_named, walk
from worker.grading.stages.report.context import GradedContext, NotGradedContext, ReportContext
from worker.grading.stages.report.measurements import SEVERITY, SUBJECT_RATING, image_group_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom.dataset import Dataset

_UID: Final = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_UID_LENGTH: Final = 64
_FILLED: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "Manufacturer",
    "SeriesDescription",
    "ContentDate",
    "ContentTime",
)
_PRESENT: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_GROUP_CONTENT: Final = (
    codes.ALGORITHM_NAME,
    codes.ALGORITHM_VERSION,
    codes.ALGORITHM_PARAMETERS,
)


def check_report(objects: Sequence[ReportObject], context: ReportContext) -> None:
    """Check every object of a report.

    Raises
    ------
    core.errors.Failed
        ``report-invalid``, with the kind of the faulty object and all its faults.
    """
    uids = [item.sop_instance_uid for item in objects]
    _refuse("report", ["two objects share one SOP Instance UID"] * (len(set(uids)) < len(uids)))
    sources = {instance.sop_instance_uid for instance in context.study.instances}
    if isinstance(context, GradedContext):
        sources.update(location.sop_instance_uid for location in context.volume.slices)
    _refuse("report", ["an object has the UID of a received instance"] * bool(sources & set(uids)))
    maps = {o.sop_instance_uid for o in objects if o.kind is ObjectKind.PARAMETRIC_MAP}
    for item in objects:
        # Only the SR variants with the map are sent to destinations that receive the map.
        sent_with_map = item.variant is not None and item.variant.parametric_map
        known_uids = sources | maps if sent_with_map else sources
        _refuse(item.kind.value, list(_faults(item, context, known_uids)))


def _refuse(what: str, faults: Sequence[str]) -> None:
    if faults:
        raise Failed(
            "report-invalid",
            f"{what}: {'; '.join(faults)}.",
            "The report is not sent. Check the headers of the study.",
        )


def _faults(item: ReportObject, context: ReportContext, known_uids: set[str]) -> Iterator[str]:
    try:
        dataset = pydicom.dcmread(BytesIO(item.content))
    except InvalidDicomError:
        yield "not a Part 10 file"
        return
    for keyword in _FILLED:
        if dataset.get(keyword) in (None, ""):
            yield f"{keyword} is missing or empty"
    for keyword in _PRESENT:
        if keyword not in dataset:
            yield f"{keyword} is missing"
    yield from _identity_faults(dataset, context)
    declared = (item.sop_class_uid, item.sop_instance_uid, item.series_uid)
    written = tuple(dataset.get(k) for k in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"))
    if declared != written:
        yield "its UIDs differ from those recorded for it"
    yield from _uid_faults(dataset)
    match item.kind:
        case ObjectKind.STRUCTURED_REPORT:
            yield from _sr_faults(dataset, context, known_uids)
        case ObjectKind.SECONDARY_CAPTURE | ObjectKind.PARAMETRIC_MAP:
            yield from _image_faults(dataset, known_uids)
    statement = context.intended_use.statement
    if item.kind is ObjectKind.SECONDARY_CAPTURE and dataset.get("ImageComments") != statement:
        yield "the intended use is not that of the models"


def _identity_faults(dataset: Dataset, context: ReportContext) -> Iterator[str]:
    if dataset.get("StudyInstanceUID") != context.study.study_uid:
        yield "it belongs to another study"
    for keyword in ("PatientID", "AccessionNumber"):
        if dataset.get(keyword) != context.source.patient_and_study.get(keyword):
            yield f"its {keyword} is not that of the study"


def _uid_faults(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.VR == "UI":
            values = element.value if isinstance(element.value, list) else [element.value]
            for uid in values:
                if uid and (len(uid) > _UID_LENGTH or not _UID.fullmatch(uid)):
                    yield f"{element.keyword} is not a valid UID"


def _image_faults(dataset: Dataset, known_uids: set[str]) -> Iterator[str]:
    expected = (
        dataset.Rows
        * dataset.Columns
        * dataset.SamplesPerPixel
        * (dataset.BitsAllocated // 8)
        * int(dataset.get("NumberOfFrames", 1))
    )
    if len(dataset.get("PixelData", b"")) != expected + expected % 2:
        yield "PixelData does not have the size of the image"
    if dataset.get("BurnedInAnnotation") is None:
        yield "BurnedInAnnotation is missing"
    for image in dataset.get("SourceImageSequence", []):
        if image.ReferencedSOPInstanceUID not in known_uids:
            yield "it refers to an image that is not in the study"


def _sr_faults(dataset: Dataset, context: ReportContext, known_uids: set[str]) -> Iterator[str]:
    flags = tuple(dataset.get(f"{flag}Flag") for flag in ("Completion", "Preliminary"))
    if flags != ("COMPLETE", "PRELIMINARY") or dataset.get("VerificationFlag") != "UNVERIFIED":
        yield "its flags do not say complete, preliminary, unverified"
    schemes = dataset.get("CodingSchemeIdentificationSequence", [])
    if codes.SCHEME not in [scheme.CodingSchemeDesignator for scheme in schemes]:
        yield f"the private scheme {codes.SCHEME} is not declared"

    tree = list(walk(dataset))
    statement = context.intended_use.statement
    if [i.TextValue for i in tree if is_named(i, codes.INTENDED_USE)] != [statement]:
        yield "the intended use is not that of the models"
    conclusions = [i.TextValue for i in tree if is_named(i, codes.CONCLUSION)]
    if len(conclusions) != 1 or statement not in conclusions[0]:
        yield "there is no conclusion with the intended use"
    if isinstance(context, GradedContext):
        yield from _grade_faults(tree, context)
    elif isinstance(context, NotGradedContext):
        yield from _not_graded_faults(tree, context)

    listed = {
        instance.ReferencedSOPInstanceUID
        for study in dataset.get("CurrentRequestedProcedureEvidenceSequence", [])
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    referred = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in tree if _refers(i)}
    if not referred <= listed:
        yield "the content refers to an image that the evidence does not list"
    if not listed <= known_uids:
        yield "the evidence lists an object that does not exist or is not sent with it"


def _grade_faults(tree: Sequence[Dataset], context: GradedContext) -> Iterator[str]:
    if not any(is_named(i, codes.AGREEMENT) for i in tree):
        yield "the agreement of the models is not stated"

    groups = [list(walk(i)) for i in tree if is_named(i, codes.MEASUREMENT_GROUP)]
    names = [
        i.TextValue for group in groups for i in group if is_named(i, codes.TRACKING_IDENTIFIER)
    ]
    expected = {SUBJECT_RATING, SEVERITY}
    expected.update(image_group_name(image.crop) for image in context.grade.images)
    if sorted(names) != sorted(expected):
        yield "the measurement groups are not those of the grade"
    for name, group in zip(names, groups, strict=False):
        for code in _GROUP_CONTENT:
            if not any(is_named(i, code) for i in group):
                yield f"{name} lacks {code.meaning}"


def _not_graded_faults(tree: Sequence[Dataset], context: NotGradedContext) -> Iterator[str]:
    stated = [i.ConceptCodeSequence[0].CodeValue for i in tree if is_named(i, codes.NOT_GRADED)]
    if stated != [codes.REASONS[context.reason].value]:
        yield "the reason differs from that of the result"
    if any(is_named(i, codes.IMAGING_MEASUREMENTS) for i in tree):
        yield "it states measurements of a study that was not graded"


def _refers(item: Dataset) -> bool:
    return item.ValueType in ("IMAGE", "COMPOSITE")
