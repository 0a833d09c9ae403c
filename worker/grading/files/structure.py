"""Walks a data set without decoding values, and counts what a parser would build from it.

pydicom builds an object for each element and each item, so a few kilobytes of empty items can cost
minutes. The walk costs microseconds an element and stops at a limit.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from worker.grading.files.checks import UnsafeInstance

if TYPE_CHECKING:
    from mmap import mmap

MAX_ELEMENTS: Final = 100_000
"""Elements and items, at all levels; a thousand frames of Enhanced MR have fewer."""
MAX_DEPTH: Final = 32

PIXEL_DATA: Final = 0x7FE00010
"""The walk ends here, as parsers do that read headers only."""

# Explicit VRs with a 16-bit length; every other one has 32 bits (PS3.5 section 7.1.2).
_SHORT_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM_GROUP: Final = 0xFFFE
_ITEM: Final = 0xFFFEE000
_ENDS: Final = frozenset({0xFFFEE00D, 0xFFFEE0DD})
_SAMPLES: Final = 0x00280002
_NUMBER_OF_FRAMES: Final = 0x00280008
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_SHORT_NUMBERS: Final = frozenset({_SAMPLES, _ROWS, _COLUMNS})
_PREAMBLE: Final = 128
_FILE_META: Final = 0x0002
_TRANSFER_SYNTAX: Final = 0x00020010


@dataclass(slots=True)
class Structure:
    """What the walk found.

    Attributes
    ----------
    n_elements : int
        Elements and items.
    numbers : dict
        Largest values, by tag, of the attributes that determine the size of the pixels: Samples per
        Pixel, Number of Frames, Rows and Columns.
    pixel_data : int or None
        Offset of the value of Pixel Data; None if there is none.
    """

    n_elements: int = 0
    numbers: dict[int, int] = field(default_factory=dict)
    pixel_data: int | None = None

    @property
    def rows(self) -> int:
        """Rows; 0 if not stated."""
        return self.numbers.get(_ROWS, 0)

    @property
    def columns(self) -> int:
        """Columns; 0 if not stated."""
        return self.numbers.get(_COLUMNS, 0)

    @property
    def samples(self) -> int:
        """Samples per Pixel; 1 if not stated."""
        return self.numbers.get(_SAMPLES, 1)

    @property
    def n_frames(self) -> int:
        """Number of Frames; 1 if not stated."""
        return self.numbers.get(_NUMBER_OF_FRAMES, 1)


class _Level(NamedTuple):
    """An open sequence or item: where it ends (None: at its delimiter), and its encoding."""

    end: int | None
    implicit: bool


def walk(data: bytes | memoryview | mmap, start: int, transfer_syntax_uid: str) -> Structure:
    """Walk the elements of a data set up to Pixel Data.

    Parameters
    ----------
    data : bytes or mmap
    start : int
        Offset of the data set in `data`.
    transfer_syntax_uid : str
        Of what `data` holds; not a deflated one.

    Raises
    ------
    UnsafeInstance
        There are more elements or levels than any real instance has.

    Notes
    -----
    Data that end inside an element are left to the parser, which reads the elements before it.
    """
    walker = _Walk(data, transfer_syntax_uid)
    with suppress(struct.error):
        walker.run(start)
    return walker.found


class _Walk:
    def __init__(self, data: bytes | memoryview | mmap, transfer_syntax_uid: str) -> None:
        self.found = Structure()
        order = ">" if transfer_syntax_uid == ExplicitVRBigEndian else "<"
        self._data = data
        self._implicit = transfer_syntax_uid == ImplicitVRLittleEndian
        self._tag_and_length = struct.Struct(order + "HHL").unpack_from
        self._tag_and_vr = struct.Struct(order + "HH2sH").unpack_from
        self._long = struct.Struct(order + "L").unpack_from
        self._short = struct.Struct(order + "H").unpack_from
        self._item_bytes = struct.pack(order + "HH", _ITEM_GROUP, _ITEM & 0xFFFF)

    def run(self, position: int) -> None:
        """Walk to Pixel Data or the end; `struct.error` if the data end inside an element."""
        found, end = self.found, len(self._data)
        levels: list[_Level] = []
        implicit = self._implicit
        while position < end:
            if levels and levels[-1].end is not None and position >= levels[-1].end:
                levels.pop()
                implicit = levels[-1].implicit if levels else self._implicit
                continue
            found.n_elements += 1
            if found.n_elements > MAX_ELEMENTS:
                raise UnsafeInstance(f"has more than {MAX_ELEMENTS} elements and items")
            tag, vr, length, position = self.element(position, implicit=implicit)
            if tag == PIXEL_DATA and not levels:
                found.pixel_data = position
                break
            if tag in _ENDS:
                if levels:
                    levels.pop()
                implicit = levels[-1].implicit if levels else self._implicit
                continue
            if not levels and (tag in _SHORT_NUMBERS or tag == _NUMBER_OF_FRAMES):
                # The largest: which one a parser takes where there are several differs.
                number = self._number(tag, position, length)
                found.numbers[tag] = max(number, found.numbers.get(tag, 0))
            if length == _UNDEFINED or tag == _ITEM or self._is_sequence(vr, position, length):
                # UN of undefined length is always implicit inside (PS3.5 section 6.2.2); pydicom
                # reads UN of defined length in the same way where it knows a sequence of that tag.
                implicit = implicit or vr == b"UN"
                levels.append(_Level(None if length == _UNDEFINED else position + length, implicit))
                if len(levels) > 2 * MAX_DEPTH:  # a sequence and an item each
                    raise UnsafeInstance(f"nests sequences more than {MAX_DEPTH} deep")
                continue
            position += length

    def element(self, position: int, *, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty if the encoding has none), length, offset of the value."""
        if not implicit:
            group, number, vr, length = self._tag_and_vr(self._data, position)
            if group != _ITEM_GROUP:
                if vr in _SHORT_VRS:
                    return group << 16 | number, vr, length, position + 8
                if vr.isalpha() and vr.isupper():
                    (length,) = self._long(self._data, position + 8)
                    return group << 16 | number, vr, length, position + 12
                # Command elements found in a data set keep their own encoding (PS3.7 6.3.1).
        group, number, length = self._tag_and_length(self._data, position)
        return group << 16 | number, b"", length, position + 8

    def _is_sequence(self, vr: bytes, position: int, length: int) -> bool:
        if vr == b"SQ":
            return length > 0
        return vr in (b"", b"UN") and (
            length >= 8 and self._data[position : position + 4] == self._item_bytes
        )

    def _number(self, tag: int, position: int, length: int) -> int:
        if tag in _SHORT_NUMBERS:
            return int(self._short(self._data, position)[0]) if length >= 2 else 0
        text = bytes(self._data[position : position + min(length, 16)])
        try:
            return int(text.split(b"\\")[0])
        except ValueError:
            return 1


def read_file_meta(data: bytes | memoryview | mmap) -> tuple[str, int] | None:
    """Read the File Meta Information of a Part 10 file (PS3.10 section 7.1).

    Returns
    -------
    tuple of (str, int) or None
        Transfer Syntax UID, and the offset of the data set; None if `data` is no Part 10 file.

    Raises
    ------
    UnsafeInstance
        The data end inside the File Meta Information.
    """
    if data[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        return None
    read = _Walk(data, ExplicitVRLittleEndian).element
    position, syntax = _PREAMBLE + 4, ""
    try:
        while position < len(data):
            tag, _, length, value = read(position, implicit=False)
            if tag >> 16 != _FILE_META:
                break
            if tag == _TRANSFER_SYNTAX:
                syntax = bytes(data[value : value + min(length, 64)]).decode("ascii", "replace")
            position = value + length
    except struct.error as error:
        raise UnsafeInstance("ends inside the File Meta Information") from error
    return syntax.rstrip("\0 "), position
