"""Reads the elements of a data set that identify an instance, and checks its top level.

`receiver.elements` walks over all top-level elements, so that no later one can contradict those
read here. Values of other elements are skipped, not decoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pydicom.charset import convert_encodings, decode_bytes

from core.text import column_text
from receiver.elements import (
    BIG_EXPLICIT,
    LITTLE_EXPLICIT,
    LITTLE_IMPLICIT,
    ElementWalk,
    Ended,
    unreadable,
)
from receiver.inflated import Inflated
from receiver.status import Refused, Status

if TYPE_CHECKING:
    from receiver.elements import Read

_CHARACTER_SET: Final = 0x00080005
_SOP_CLASS_UID: Final = 0x00080016
_SOP_INSTANCE_UID: Final = 0x00080018
_STUDY_DATE: Final = 0x00080020
_ACCESSION_NUMBER: Final = 0x00080050
_MODALITY: Final = 0x00080060
_PATIENT_ID: Final = 0x00100020
_ISSUER_OF_PATIENT_ID: Final = 0x00100021
_STUDY_UID: Final = 0x0020000D
_SERIES_UID: Final = 0x0020000E
_STATION_NAME: Final = 0x00081010
_REQUESTED_PRIORITY: Final = 0x00401003

_UIDS: Final = {
    _SOP_CLASS_UID: "SOP Class UID",
    _SOP_INSTANCE_UID: "SOP Instance UID",
    _STUDY_UID: "Study Instance UID",
    _SERIES_UID: "Series Instance UID",
}
_WANTED: Final = frozenset(
    {
        *_UIDS,
        *(_CHARACTER_SET, _STUDY_DATE, _ACCESSION_NUMBER, _MODALITY),
        *(_PATIENT_ID, _ISSUER_OF_PATIENT_ID),
    }
)
_OPTIONAL: Final = frozenset({_STATION_NAME, _REQUESTED_PRIORITY})

_ENCODINGS: Final = {
    "1.2.840.10008.1.2": LITTLE_IMPLICIT,
    "1.2.840.10008.1.2.2": BIG_EXPLICIT,
}
"""Transfer syntaxes that are not encoded in explicit VR little endian."""
_DEFLATED: Final = frozenset(
    # Deflated Explicit VR Little Endian; JPIP Referenced Deflate; JPIP HTJ2K Referenced Deflate
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)

_UID: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*")


@dataclass(frozen=True, slots=True)
class Header:
    """Identifying elements of an instance; its UIDs are valid."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    patient_id: str
    accession_number: str
    study_date: str
    """``YYYYMMDD`` or empty."""
    modality: str
    station_name: str
    requested_priority: str
    """Requested Procedure Priority (0040,1003): STAT, HIGH, ROUTINE, MEDIUM, LOW, or empty."""
    issuer_of_patient_id: str = ""


@lru_cache(1024)  # most UIDs of an instance equal those of the previous one
def is_valid_uid(text: str) -> bool:
    """Whether `text` is a UID as PS3.5 section 9.1 defines it."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_header(read: Read, size_bytes: int, transfer_syntax_uid: str) -> Header:
    """Read the identifying elements of an instance, and walk over the others.

    Parameters
    ----------
    read : Read
        Reads the data set as received.
    size_bytes : int
        Its length.
    transfer_syntax_uid : str
        Its transfer syntax.

    Raises
    ------
    Refused
        The data set cannot be read, top-level elements are doubled or not in ascending order, or a
        UID is missing or invalid.
    """
    beginning = read(0, 2)
    if beginning == b"\x02\0":  # a reader would take it for the end of the file's own group 0002
        raise unreadable("begins with File Meta Information")
    if transfer_syntax_uid in _DEFLATED:
        read = Inflated(read).read
        # pydicom looks for command elements in the deflated bytes.
        if b"\0\0" in (beginning, read(0, 2)):
            raise unreadable("is deflated and has command elements")
    encoding = _ENCODINGS.get(transfer_syntax_uid, LITTLE_EXPLICIT)
    try:
        values = ElementWalk(read, encoding, size_bytes).values(_WANTED, _OPTIONAL)
    except Ended as ended:
        # Nothing can follow a cut element. One cut after these UIDs is stored as it was sent.
        values = ended.values
        if not _UIDS.keys() <= values.keys():
            raise unreadable("ends inside the header") from None
    uids = {tag: _uid(values, tag) for tag in _UIDS}
    charset = values.get(_CHARACTER_SET, b"")
    study_date = _text(values.get(_STUDY_DATE, b""))
    return Header(
        sop_class_uid=uids[_SOP_CLASS_UID],
        sop_instance_uid=uids[_SOP_INSTANCE_UID],
        study_uid=uids[_STUDY_UID],
        series_uid=uids[_SERIES_UID],
        patient_id=_text(values.get(_PATIENT_ID, b""), charset),
        accession_number=_text(values.get(_ACCESSION_NUMBER, b""), charset)[:16],
        study_date=study_date if re.fullmatch(r"[0-9]{8}", study_date) else "",
        modality=_text(values.get(_MODALITY, b""))[:16],
        station_name=_text(values.get(_STATION_NAME, b""), charset)[:16],
        requested_priority=_text(values.get(_REQUESTED_PRIORITY, b""))[:16],
        issuer_of_patient_id=_text(values.get(_ISSUER_OF_PATIENT_ID, b""), charset),
    )


def _uid(values: dict[int, bytes], tag: int) -> str:
    text = values.get(tag, b"").strip(b"\0 ").decode("ascii", "replace")
    if not text:
        raise Refused(Status.UID_MISSING, f"The data set has no {_UIDS[tag]}.")
    if not is_valid_uid(text):
        raise Refused(Status.UID_INVALID, f"The {_UIDS[tag]} is not a UID (PS3.5 section 9.1).")
    return text


@lru_cache(128)
def _text(value: bytes, character_set: bytes = b"") -> str:
    """Decode a short text for a text column."""
    try:
        terms = character_set.decode("iso8859").strip("\0 ").split("\\")
        # pydicom warns of a term that it does not know, in which others might see commands.
        terms = [term if term.isprintable() else "" for term in terms]
        text = decode_bytes(value, convert_encodings(terms), set())
    except (LookupError, ValueError):  # a broken Specific Character Set or value
        text = value.decode("ascii", "replace")
    return column_text(text)
