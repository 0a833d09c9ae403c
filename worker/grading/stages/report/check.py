"""Reporting: the last look before anything is sent: a report that fails here is never delivered.

It reads the written bytes back, as the PACS will, and looks for what would mislead or be refused:
missing content, broken UIDs, dangling references. The test suite runs the full validators.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Final

import pydicom
from pydicom.errors import InvalidDicomError

from core.errors import Failed
from core.results import ObjectKind, ReportObject
from core.version import CAVEAT
from worker.grading.stages.report import codes
from worker.grading.stages.report.document import BaseCase, Case, RejectedCase
from worker.grading.stages.report.measurements import SEVERITY, SUBJECT_RATING, image_group_name
from worker.grading.stages.report.tree import is_named, walk

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


def check_report(objects: Sequence[ReportObject], case: BaseCase) -> None:
    """Check every object of a report.

    Raises
    ------
    core.errors.Failed
        ``report-invalid``, with the kind of the object and all its faults.
    """
    uids = [item.sop_instance_uid for item in objects]
    _refuse("report", ["two objects share one SOP Instance UID"] * (len(set(uids)) < len(uids)))
    sources = {instance.sop_instance_uid for instance in case.study.instances}
    if isinstance(case, Case):
        sources.update(location.sop_instance_uid for location in case.volume.slices)
    _refuse("report", ["an object has the UID of a received instance"] * bool(sources & set(uids)))
    for item in objects:
        _refuse(item.kind.value, list(_faults(item, case, sources | set(uids))))


def _refuse(what: str, faults: Sequence[str]) -> None:
    if faults:
        raise Failed(
            "report-invalid",
            f"{what}: {'; '.join(faults)}.",
            "The report is kept back. Look at the headers of the study.",
        )


def _faults(item: ReportObject, case: BaseCase, known_uids: set[str]) -> Iterator[str]:
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
    if dataset.get("StudyInstanceUID") != case.study.study_uid:
        yield "it belongs to another study"
    declared = (item.sop_class_uid, item.sop_instance_uid, item.series_uid)
    written = tuple(dataset.get(k) for k in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"))
    if declared != written:
        yield "its UIDs are not the ones it is filed under"
    yield from _uid_faults(dataset)
    match item.kind:
        case ObjectKind.STRUCTURED_REPORT:
            yield from _sr_faults(dataset, case, known_uids)
        case ObjectKind.SECONDARY_CAPTURE | ObjectKind.PARAMETRIC_MAP:
            yield from _image_faults(dataset, known_uids)


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


def _sr_faults(dataset: Dataset, case: BaseCase, known_uids: set[str]) -> Iterator[str]:
    flags = tuple(dataset.get(f"{flag}Flag") for flag in ("Completion", "Preliminary"))
    if flags != ("COMPLETE", "PRELIMINARY") or dataset.get("VerificationFlag") != "UNVERIFIED":
        yield "its flags do not say complete, preliminary, unverified"
    schemes = dataset.get("CodingSchemeIdentificationSequence", [])
    if codes.SCHEME not in [scheme.CodingSchemeDesignator for scheme in schemes]:
        yield f"the private scheme {codes.SCHEME} is not declared"

    tree = list(walk(dataset))
    statements = [i.TextValue for i in tree if is_named(i, codes.CONCLUSION)]
    if len(statements) != 1 or CAVEAT not in statements[0]:
        yield "there is no conclusion with the caveat"
    if not any(is_named(i, codes.INTENDED_USE) for i in tree):
        yield "the intended use is not stated"
    if isinstance(case, Case):
        yield from _grade_faults(tree, case)
    elif isinstance(case, RejectedCase):
        yield from _rejection_faults(tree, case)

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
        yield "the evidence lists an object that does not exist"


def _grade_faults(tree: Sequence[Dataset], case: Case) -> Iterator[str]:
    if not any(is_named(i, codes.AGREEMENT) for i in tree):
        yield "the agreement of the models is not stated"

    groups = [list(walk(i)) for i in tree if is_named(i, codes.MEASUREMENT_GROUP)]
    names = [
        i.TextValue for group in groups for i in group if is_named(i, codes.TRACKING_IDENTIFIER)
    ]
    expected = {SUBJECT_RATING, SEVERITY}
    expected.update(image_group_name(image.crop) for image in case.grade.images)
    if sorted(names) != sorted(expected):
        yield "the measurement groups are not those of the grade"
    for name, group in zip(names, groups, strict=False):
        for code in _GROUP_CONTENT:
            if not any(is_named(i, code) for i in group):
                yield f"{name} lacks {code.meaning}"


def _rejection_faults(tree: Sequence[Dataset], case: RejectedCase) -> Iterator[str]:
    stated = [i.ConceptCodeSequence[0].CodeValue for i in tree if is_named(i, codes.NOT_GRADED)]
    if stated != [codes.REASONS[case.reason].value]:
        yield "the reason is not the one that the study was rejected for"
    if any(is_named(i, codes.IMAGING_MEASUREMENTS) for i in tree):
        yield "it states measurements of a study that was not graded"


def _refers(item: Dataset) -> bool:
    return item.ValueType in ("IMAGE", "COMPOSITE")
