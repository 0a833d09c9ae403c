"""Builds the result message from an SR: unsolicited ORU^R01, HL7 v2.5.1 chapter 7, section 7.3.1.

The study is identified as in IHE RAD-128 (113014 DICOM Study in the first OBX, Accession Number in
OBR-18). The message depends only on the SR, the sending application and the destination: a resend
has the same bytes. ``docs/hl7.md`` has the table of fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from pydicom.sr.coding import Code

from core.errors import Failed
from core.uids import digest
from worker.delivery.hl7 import er7
from worker.delivery.hl7.patient import pid, text_of
from worker.grading.stages.report import codes
from worker.grading.stages.report.content_tree import is_named, walk
from worker.grading.stages.report.measurements import SEVERITY, SUBJECT_RATING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom.dataset import Dataset

    from core.destinations import Hl7Destination

DICOM_STUDY: Final = Code("113014", "DCM", "DICOM Study")
"""Names the Study Instance UID, as in IHE RAD-128."""
SR_INSTANCE: Final = Code("SRINSTANCEUID", codes.SCHEME, "SOP Instance UID of the DICOM SR")

PRELIMINARY: Final = "P"
"""Result Status (HL7 tables 0123 and 0085): not verified by a person."""
NOT_OBTAINED: Final = "X"
"""No result was obtained, and none will follow."""
NO_RESULT: Final = "O"
"""Detail of the order only."""

_ID_LENGTH: Final = 20
"""Longest MSH-10 (HL7 v2.5.1, section 2.15.9.10)."""
_RADIOLOGY: Final = "RAD"
"""Diagnostic Service Section (HL7 table 0074)."""

# Content items of each measurement group that become OBX segments, in this order.
_SUBJECT_ITEMS: Final = (
    codes.EPVS,
    codes.HIGHEST_RATING,
    codes.MAJORITY_RATING,
    codes.RATING_PROBABILITY,
    codes.ALGORITHM_NAME,
    codes.ALGORITHM_VERSION,
)
_SEVERITY_ITEMS: Final = (
    codes.SEVERITY,
    codes.SEVERITY_PROBABILITY,
    codes.ALGORITHM_NAME,
    codes.ALGORITHM_VERSION,
)
_DOCUMENT_ITEMS: Final = (
    codes.AGREEMENT,
    codes.COMMENT,
    codes.CONCLUSION,
    codes.INTENDED_USE,
)
_IMAGE_ITEMS: Final = (codes.RATING, codes.RATING_PROBABILITY)
_TRACKING_PREFIX: Final = "EPVS-BG-"
"""Omitted in OBX-4, which has 20 characters."""


@dataclass(frozen=True, slots=True)
class ResultMessage:
    """A message and its control id (MSH-10), which the acknowledgment must repeat."""

    control_id: str
    content: bytes


def result_message(sr: Dataset, destination: Hl7Destination, *, application: str) -> ResultMessage:
    """Build the HL7 message with the content of an SR of this node.

    Parameters
    ----------
    sr : Dataset
        The stored SR.
    destination : Hl7Destination
    application : str
        Sending Application: the AE title of this node.

    Raises
    ------
    Failed
        ``report-without-result``: the SR has neither a grade nor a reason for not grading.
    """
    items = list(walk(sr))
    not_graded = any(is_named(item, codes.NOT_GRADED) for item in items)
    status = NOT_OBTAINED if not_graded else PRELIMINARY
    results = [
        *_observations(items, (codes.NOT_GRADED,), status),
        *_graded(items, status),
    ]
    if not results:
        raise Failed(
            "report-without-result", "the SR has neither a grade nor a reason for not grading"
        )
    observations = [
        _Observation(DICOM_STUDY, "ST", text_of(sr, "StudyInstanceUID"), NO_RESULT),
        _Observation(SR_INSTANCE, "ST", text_of(sr, "SOPInstanceUID"), NO_RESULT),
        *results,
        *_observations(items, _DOCUMENT_ITEMS, status),
    ]
    control_id = digest([text_of(sr, "SOPInstanceUID"), destination.name])[:_ID_LENGTH].upper()
    segments = [
        _msh(sr, destination, application, control_id),
        pid(sr),
        _obr(sr, application, status),
        *(observation.obx(number) for number, observation in enumerate(observations, 1)),
    ]
    return ResultMessage(control_id, er7.message(segments))


@dataclass(frozen=True, slots=True)
class _Observation:
    """One OBX segment (HL7 v2.5.1, section 7.4.2)."""

    name: Code
    value_type: str
    value: er7.Value
    status: str
    group: str = ""
    units: Code | None = None

    def obx(self, number: int) -> str:
        return er7.segment(
            "OBX",
            {
                1: str(number),
                2: self.value_type,
                3: _coded(self.name),
                4: self.group,
                5: self.value,
                6: _coded(self.units) if self.units else "",
                11: self.status,
            },
        )


def _graded(items: Sequence[Dataset], status: str) -> Iterator[_Observation]:
    for group in items:
        if not is_named(group, codes.MEASUREMENT_GROUP):
            continue
        content = group.ContentSequence
        name = next(i.TextValue for i in content if is_named(i, codes.TRACKING_IDENTIFIER))
        wanted = {SUBJECT_RATING: _SUBJECT_ITEMS, SEVERITY: _SEVERITY_ITEMS}.get(name, _IMAGE_ITEMS)
        yield from _observations(content, wanted, status, name.removeprefix(_TRACKING_PREFIX))


def _observations(
    items: Sequence[Dataset], wanted: Sequence[Code], status: str, group: str = ""
) -> Iterator[_Observation]:
    for name in wanted:
        for item in items:
            if is_named(item, name):
                yield _observation(item, status, group)


def _observation(item: Dataset, status: str, group: str) -> _Observation:
    name = _code_of(item.ConceptNameCodeSequence[0])
    if item.ValueType == "CODE":
        value = _coded(_code_of(item.ConceptCodeSequence[0]))
        return _Observation(name, "CWE", value, status, group)
    if item.ValueType == "NUM":
        measured = item.MeasuredValueSequence[0]
        number = format(Decimal(str(measured.NumericValue)), "f")  # NM has no exponent
        units = _code_of(measured.MeasurementUnitsCodeSequence[0])
        return _Observation(name, "NM", number, status, group, units)
    return _Observation(name, "TX", item.TextValue, status, group)


def _msh(sr: Dataset, destination: Hl7Destination, application: str, control_id: str) -> str:
    return er7.segment(
        "MSH",
        {
            3: application,
            5: destination.application,
            6: destination.facility,
            7: _moment(sr, "ContentDate", "ContentTime"),
            9: ("ORU", "R01", "ORU_R01"),
            10: control_id,
            11: "P",
            12: er7.VERSION,
            18: "UNICODE UTF-8",
        },
    )


def _obr(sr: Dataset, application: str, status: str) -> str:
    # All revisions of a study share one filler order number: a later report replaces an earlier.
    filler_order = digest(text_of(sr, "StudyInstanceUID"))[:_ID_LENGTH].upper()
    return er7.segment(
        "OBR",
        {
            1: "1",
            3: (filler_order, application),
            4: _coded(_code_of(sr.ConceptNameCodeSequence[0])),
            7: _moment(sr, "StudyDate", "StudyTime"),
            18: text_of(sr, "AccessionNumber"),
            22: _moment(sr, "ContentDate", "ContentTime"),
            24: _RADIOLOGY,
            25: status,
        },
    )


def _moment(sr: Dataset, date: str, time: str) -> str:
    """Return date and time to the second, with the UTC offset if the SR states one."""
    day, clock = text_of(sr, date), text_of(sr, time)[:6]
    return day + clock + text_of(sr, "TimezoneOffsetFromUTC") if day and clock else day


def _code_of(item: Dataset) -> Code:
    return Code(str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.CodeMeaning))


def _coded(code: Code) -> er7.Value:
    """Return the components of CE and CWE: identifier, text, coding system."""
    return (code.value, code.meaning, code.scheme_designator)
