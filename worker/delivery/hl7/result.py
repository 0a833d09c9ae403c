"""One SR as an unsolicited result message, ORU^R01 of HL7 v2.5.1 (chapter 7, section 7.3.1).

The study is named as IHE RAD-128 does (113014 DICOM Study in the first OBX, Accession Number in
OBR-18). The message is a function of the SR and of who talks to whom: sending again is sending the
same bytes. ``docs/operations.md`` has the table of fields.
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
from worker.grading.stages.report.measurements import SEVERITY, SUBJECT_RATING
from worker.grading.stages.report.tree import is_named, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom.dataset import Dataset

    from core.destinations import Hl7Destination

DICOM_STUDY: Final = Code("113014", "DCM", "DICOM Study")
"""Study Instance UID, in IHE's words."""
SR_INSTANCE: Final = Code("SRINSTANCEUID", codes.SCHEME, "SOP Instance UID of the DICOM SR")

PRELIMINARY: Final = "P"
"""Result Status (HL7 tables 0123 and 0085): no person has verified it."""
NOT_OBTAINED: Final = "X"
"""There is no result, and none is to be expected."""
NO_RESULT: Final = "O"
"""Detail of the order only."""

_ID_LENGTH: Final = 20
"""Longest MSH-10 (HL7 v2.5.1, section 2.15.9.10)."""
_RADIOLOGY: Final = "RAD"
"""Diagnostic Service Section (HL7 table 0074)."""

# Which content items of a measurement group are told, in this order.
_OF_SUBJECT: Final = (
    codes.EPVS,
    codes.HIGHEST_RATING,
    codes.MAJORITY_RATING,
    codes.RATING_PROBABILITY,
    codes.ALGORITHM_NAME,
    codes.ALGORITHM_VERSION,
)
_OF_SEVERITY: Final = (
    codes.SEVERITY,
    codes.SEVERITY_PROBABILITY,
    codes.ALGORITHM_NAME,
    codes.ALGORITHM_VERSION,
)
_OF_THE_WHOLE: Final = (
    codes.AGREEMENT,
    codes.COMMENT,
    codes.CONCLUSION,
    codes.INTENDED_USE,
)
_OF_IMAGE: Final = (codes.RATING, codes.RATING_PROBABILITY)
_TRACKING_PREFIX: Final = "EPVS-BG-"
"""Left out of OBX-4, which has 20 characters."""


@dataclass(frozen=True, slots=True)
class ResultMessage:
    """A message and the control id (MSH-10) that its acknowledgment has to carry."""

    control_id: str
    content: bytes


def result_message(sr: Dataset, destination: Hl7Destination, *, application: str) -> ResultMessage:
    """Say in HL7 what an SR of this node says.

    Parameters
    ----------
    sr : Dataset
        As it is kept.
    destination : Hl7Destination
    application : str
        Sending Application: our AE title.

    Raises
    ------
    Failed
        ``report-without-result``: the SR states neither a grade nor why there is none.
    """
    items = list(walk(sr))
    not_graded = any(is_named(item, codes.NOT_GRADED) for item in items)
    status = NOT_OBTAINED if not_graded else PRELIMINARY
    results = [
        *_observations(items, (codes.NOT_GRADED,), status),
        *_graded(items, status),
    ]
    if not results:
        raise Failed("report-without-result", "the SR states neither a grade nor why there is none")
    observations = [
        _Observation(DICOM_STUDY, "ST", text_of(sr, "StudyInstanceUID"), NO_RESULT),
        _Observation(SR_INSTANCE, "ST", text_of(sr, "SOPInstanceUID"), NO_RESULT),
        *results,
        *_observations(items, _OF_THE_WHOLE, status),
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
        wanted = {SUBJECT_RATING: _OF_SUBJECT, SEVERITY: _OF_SEVERITY}.get(name, _OF_IMAGE)
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
        number = format(Decimal(str(measured.NumericValue)), "f")  # NM knows no exponent
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
    # The order is the study's, whatever its revision: a later report replaces the earlier one.
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
    """Date and time to the second, with the offset from UTC where the SR states one."""
    day, clock = text_of(sr, date), text_of(sr, time)[:6]
    return day + clock + text_of(sr, "TimezoneOffsetFromUTC") if day and clock else day


def _code_of(item: Dataset) -> Code:
    return Code(str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.CodeMeaning))


def _coded(code: Code) -> er7.Value:
    """CE and CWE: identifier, text, coding system."""
    return (code.value, code.meaning, code.scheme_designator)
