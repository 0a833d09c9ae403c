"""Reads the leading elements of a data set that identify an instance, and nothing else.

Walks the top-level elements up to Series Instance UID, (0020,000E), which precedes the pixel data
in every object. Values of other elements are skipped, not decoded. The input is treated as hostile,
so every step is bounded: elements, nesting, value lengths, inflated bytes.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom.charset import convert_encodings, decode_bytes

from receiver.status import Refused, Status

if TYPE_CHECKING:
    from mmap import mmap

_CHARACTER_SET: Final = 0x00080005
_SOP_CLASS_UID: Final = 0x00080016
_SOP_INSTANCE_UID: Final = 0x00080018
_STUDY_DATE: Final = 0x00080020
_ACCESSION_NUMBER: Final = 0x00080050
_MODALITY: Final = 0x00080060
_PATIENT_ID: Final = 0x00100020
_STUDY_UID: Final = 0x0020000D
_SERIES_UID: Final = 0x0020000E

_UIDS: Final = {
    _SOP_CLASS_UID: "SOP Class UID",
    _SOP_INSTANCE_UID: "SOP Instance UID",
    _STUDY_UID: "Study Instance UID",
    _SERIES_UID: "Series Instance UID",
}
_WANTED: Final = frozenset(
    {*_UIDS, _CHARACTER_SET, _STUDY_DATE, _ACCESSION_NUMBER, _MODALITY, _PATIENT_ID}
)
_LAST_WANTED: Final = max(_WANTED)

# Explicit VRs with a 16-bit length; every other one has 32 bits (PS3.5 section 7.1.2).
_SHORT_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_DELIMITERS: Final = 0xFFFE
"""Group of the elements that have no VR in any encoding (PS3.5 section 7.5)."""
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD

# Far beyond any real header; reading a hostile one still takes milliseconds.
_MAX_ELEMENTS: Final = 50_000
_MAX_DEPTH: Final = 64
_MAX_VALUE_BYTES: Final = 1024
_MAX_INFLATED_BYTES: Final = 4 * 1024 * 1024

_IMPLICIT: Final = "1.2.840.10008.1.2"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
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


class _Encoding:
    """Layout of the elements of a data set (PS3.5 section 7.1).

    Parameters
    ----------
    implicit : bool
    byte_order : str
        As `struct` writes it.
    """

    def __init__(self, *, implicit: bool, byte_order: str) -> None:
        self.implicit = implicit
        self.implicit_vr = struct.Struct(byte_order + "HHL")
        """Group, number, length."""
        self.explicit_vr = struct.Struct(byte_order + "HH2sH")
        """Group, number, VR, and a 16-bit length, which some VRs have."""
        self.long_length = struct.Struct(byte_order + "L")


_LITTLE_IMPLICIT: Final = _Encoding(implicit=True, byte_order="<")
_LITTLE_EXPLICIT: Final = _Encoding(implicit=False, byte_order="<")
_BIG_EXPLICIT: Final = _Encoding(implicit=False, byte_order=">")


class _Element(NamedTuple):
    tag: int
    vr: bytes
    length: int
    start: int
    """Offset of the value."""


@lru_cache(1024)  # most UIDs of an instance equal those of the previous one
def is_valid_uid(text: str) -> bool:
    """Whether `text` is a UID as PS3.5 section 9.1 defines it."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_header(data: bytes | mmap, transfer_syntax_uid: str, start: int = 0) -> Header:
    """Read the identifying elements of an instance.

    Parameters
    ----------
    data : bytes or mmap
        The data set as received, or its beginning, from `start` on.
    transfer_syntax_uid : str
        Its transfer syntax.
    start : int, optional
        Offset of the data set in `data`, after preamble and File Meta Information.

    Raises
    ------
    Refused
        The header cannot be read, or a UID is missing or invalid.
    """
    try:
        if transfer_syntax_uid in _DEFLATED:
            with memoryview(data) as view, view[start:] as deflated:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, _MAX_INFLATED_BYTES)
            start = 0
        values = _Walk(data).leading_values(_encoding(transfer_syntax_uid), start)
    except (struct.error, zlib.error) as error:
        raise _unreadable("is broken or ends inside the header") from error
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
    )


def _encoding(transfer_syntax_uid: str) -> _Encoding:
    if transfer_syntax_uid == _IMPLICIT:
        return _LITTLE_IMPLICIT
    return _BIG_EXPLICIT if transfer_syntax_uid == _BIG_ENDIAN else _LITTLE_EXPLICIT


def _unreadable(why: str) -> Refused:
    return Refused(Status.HEADER_UNREADABLE, f"The data set {why}.")


class _Walk:
    """A walk over the elements of one data set, with one limit on the number of elements.

    Parameters
    ----------
    data : bytes or mmap
    """

    def __init__(self, data: bytes | mmap) -> None:
        self._data = data
        self._elements_left = _MAX_ELEMENTS

    def leading_values(self, encoding: _Encoding, position: int) -> dict[int, bytes]:
        """Raw values of the wanted top-level elements from `position` on, as far as present."""
        values: dict[int, bytes] = {}
        while position < len(self._data):
            element = self._element(position, encoding)
            if element.tag > _LAST_WANTED:
                break
            if element.length == _UNDEFINED_LENGTH:
                position = self._end_of_sequence(element, encoding)
                continue
            position = self._end_of_value(element)
            if element.tag in _WANTED:
                if element.length > _MAX_VALUE_BYTES:
                    raise _unreadable(f"holds {element.length} bytes in {_name(element.tag)}")
                values[element.tag] = self._data[element.start : position]
                if element.tag == _LAST_WANTED:
                    break
        return values

    def _element(self, position: int, encoding: _Encoding) -> _Element:
        """Tag, VR and length of the element at `position`; `struct.error` past the end."""
        self._elements_left -= 1
        if self._elements_left < 0:
            raise _unreadable(f"has more than {_MAX_ELEMENTS} elements before its UIDs end")
        if encoding.implicit:
            return self._implicit(position, encoding)
        group, number, vr, length = encoding.explicit_vr.unpack_from(self._data, position)
        if group == _DELIMITERS:
            return self._implicit(position, encoding)
        if vr in _SHORT_VRS:
            return _Element(group << 16 | number, vr, length, position + 8)
        if not (vr.isalpha() and vr.isupper()):
            # Command elements found in a data set keep their own encoding (PS3.7 section 6.3.1).
            if group != 0:
                name = _name(group << 16 | number)
                raise _unreadable(f"has no VR at {name}: not in the negotiated syntax")
            return self._implicit(position, encoding)
        (length,) = encoding.long_length.unpack_from(self._data, position + 8)
        return _Element(group << 16 | number, vr, length, position + 12)

    def _implicit(self, position: int, encoding: _Encoding) -> _Element:
        group, number, length = encoding.implicit_vr.unpack_from(self._data, position)
        return _Element(group << 16 | number, b"", length, position + 8)

    def _end_of_value(self, element: _Element) -> int:
        end = element.start + element.length
        if end > len(self._data):
            raise _unreadable(f"ends inside the value of {_name(element.tag)}")
        return end

    def _end_of_sequence(self, sequence: _Element, encoding: _Encoding) -> int:
        """Offset after a sequence of undefined length; a list, not recursion, keeps the depth."""
        position = sequence.start
        # (closing tag, encoding inside) of every open sequence and item
        open_levels = [(_SEQUENCE_END, _inside(sequence, encoding))]
        while open_levels:
            closing, inner = open_levels[-1]
            element = self._element(position, inner)
            position = element.start
            if element.tag == closing:
                open_levels.pop()
            elif (closing == _SEQUENCE_END) != (element.tag == _ITEM):
                raise _unreadable(f"has {_name(element.tag)} where a sequence does not allow it")
            elif element.length != _UNDEFINED_LENGTH:
                position = self._end_of_value(element)
            elif len(open_levels) == _MAX_DEPTH:
                raise _unreadable(f"nests sequences more than {_MAX_DEPTH} deep")
            elif element.tag == _ITEM:
                open_levels.append((_ITEM_END, inner))
            else:
                open_levels.append((_SEQUENCE_END, _inside(element, inner)))
        return position


def _inside(sequence: _Element, encoding: _Encoding) -> _Encoding:
    # UN of undefined length is always implicit little endian inside (PS3.5 section 6.2.2).
    return _LITTLE_IMPLICIT if sequence.vr == b"UN" else encoding


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _uid(values: dict[int, bytes], tag: int) -> str:
    text = values.get(tag, b"").strip(b"\0 ").decode("ascii", "replace")
    if not text:
        raise Refused(Status.UID_MISSING, f"The data set has no {_UIDS[tag]}.")
    if not is_valid_uid(text):
        raise Refused(Status.UID_INVALID, f"The {_UIDS[tag]} is not a UID (PS3.5 section 9.1).")
    return text


@lru_cache(128)
def _text(value: bytes, character_set: bytes = b"") -> str:
    """Decode a short text for a text column: printable, at most 64 characters."""
    try:
        terms = character_set.decode("ascii").strip("\0 ").split("\\")
        text = decode_bytes(value, convert_encodings(terms), set())
    except (LookupError, UnicodeError):  # an unknown or broken Specific Character Set
        text = value.decode("ascii", "replace")
    return "".join(character for character in text if character.isprintable()).strip()[:64]
