"""The patient of an SR as an HL7 PID segment (HL7 v2.5.1 chapter 3, section 3.4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydicom.multival import MultiValue

from worker.delivery.hl7 import er7

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_GROUPS: Final = "AIP"
"""HL7 table 0465 for the groups of a DICOM name: alphabetic, ideographic, phonetic."""


def pid(sr: Dataset) -> str:
    """Write the PID segment; what the SR does not say is left out."""
    return er7.segment(
        "PID",
        {
            1: "1",
            3: (text_of(sr, "PatientID"), "", "", text_of(sr, "IssuerOfPatientID")),
            5: names(text_of(sr, "PatientName")),
            7: text_of(sr, "PatientBirthDate"),
            8: text_of(sr, "PatientSex"),
        },
    )


def names(name: str) -> list[er7.Value]:
    """Turn a DICOM person name into repetitions of XPN, one for each way of writing it.

    Parameters
    ----------
    name : str
        VR PN (PS3.5 section 6.2.1): up to three groups parted by ``=``; in each, family, given and
        middle name, prefix and suffix parted by ``^``.
    """
    repetitions: list[er7.Value] = []
    for representation, group in zip(_GROUPS, name.split("=", 2), strict=False):
        family, given, middle, prefix, suffix = (group.split("^", 4) + [""] * 4)[:5]
        components = (family, given, middle, suffix, prefix)  # XPN puts the suffix first
        if any(component.strip() for component in components):
            repetitions.append((*components, "", "", representation))
    return repetitions


def text_of(dataset: Dataset, keyword: str) -> str:
    r"""Text of an attribute, empty where there is none.

    A backslash in an identifier or a name is against the rules (PS3.5 section 6.2) and reads as a
    separator of values; who the patient is must not change by it.
    """
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        return "\\".join(str(part) for part in value)
    return "" if value is None else str(value)
