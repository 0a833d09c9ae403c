"""Builds the HL7 PID segment from the patient of an SR (HL7 v2.5.1 chapter 3, section 3.4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydicom.multival import MultiValue

from worker.delivery.hl7 import er7

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_GROUPS: Final = "AIP"
"""HL7 table 0465, for the component groups of a DICOM name: alphabetic, ideographic, phonetic."""


def pid(sr: Dataset) -> str:
    """Build the PID segment; attributes that the SR lacks are omitted."""
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
    """Convert a DICOM person name to repetitions of XPN, one for each component group.

    Parameters
    ----------
    name : str
        VR PN (PS3.5 section 6.2.1): up to three groups separated by ``=``; in each, family, given
        and middle name, prefix and suffix separated by ``^``.
    """
    repetitions: list[er7.Value] = []
    for representation, group in zip(_GROUPS, name.split("=", 2), strict=False):
        family, given, middle, prefix, suffix = (group.split("^", 4) + [""] * 4)[:5]
        components = (family, given, middle, suffix, prefix)  # XPN puts the suffix first
        if any(component.strip() for component in components):
            repetitions.append((*components, "", "", representation))
    return repetitions


def text_of(dataset: Dataset, keyword: str) -> str:
    r"""Return the text of an attribute; an empty string if it is absent.

    pydicom takes a backslash for a separator of values. One in an identifier or a name, although
    not allowed (PS3.5 section 6.2), is restored, so that the patient's identity does not change.
    """
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        return "\\".join(str(part) for part in value)
    return "" if value is None else str(value)
