"""Walks the top-level elements of a data set, whose values it skips by their lengths.

The input is treated as hostile, so every step is bounded: elements, nesting, value lengths, memory,
inflated bytes. Whatever readers of the stored file could take differently is refused: elements out
of ascending order (PS3.5 section 7.1) or doubled, of which pydicom takes the last; and encodings
that are ambiguous, of which a reader must guess one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from pydicom.datadict import dictionary_VR

from receiver.status import Refused, Status

# Bytes of a data set, given position and number; fewer at its end. Positions never decrease by more
# than the number of bytes read last.
Read: TypeAlias = Callable[[int, int], bytes]

# VRs with a 16-bit length and with a 32-bit length (PS3.5 section 7.1.2).
_SHORT_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_DELIMITERS: Final = 0xFFFE
"""Group of the elements that have no VR in any encoding (PS3.5 section 7.5)."""
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_PIXEL_DATA: Final = 0x7FE00010
_NO_TAG: Final = -1

WINDOW_BYTES: Final = 16 * 1024
"""Read at once; holds nearly every header."""
_ELEMENT_BYTES: Final = 12
"""Longest tag, VR and length."""
_MAX_ELEMENTS: Final = 50_000
_BYTES_PER_ELEMENT: Final = 16
"""One more element is walked for each of these received, so that CPU time is bounded by them."""
_MAX_DEPTH: Final = 64
MAX_VALUE_BYTES: Final = 1024
"""Longest value that is read, far beyond that of any real header."""


class Ended(Exception):
    """The data set ends inside an element.

    Attributes
    ----------
    values : dict of int to bytes
        Those read before.
    """

    def __init__(self) -> None:
        super().__init__("the data set ends inside an element")
        self.values: dict[int, bytes] = {}


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


LITTLE_IMPLICIT: Final = _Encoding(implicit=True, byte_order="<")
LITTLE_EXPLICIT: Final = _Encoding(implicit=False, byte_order="<")
BIG_EXPLICIT: Final = _Encoding(implicit=False, byte_order=">")


# Tag, VR, length and position of the value of an element; a plain tuple, made for every element.
_Element: TypeAlias = tuple[int, bytes, int, int]


class _Level(NamedTuple):
    """An open value of undefined length, or an open item."""

    closing: int
    """Tag that ends it."""
    encoding: _Encoding
    """Of the elements inside."""
    has_items: bool
    """False for pixel data, which has fragments."""
    end: int = -1
    """Position where it ends, if its length is defined."""


class ElementWalk:
    """A walk over the elements of one data set, from its beginning to its end.

    Parameters
    ----------
    read : Read
    encoding : _Encoding
    size_bytes : int
        Bytes received; deflated, they are fewer than those walked over.
    """

    def __init__(self, read: Read, encoding: _Encoding, size_bytes: int) -> None:
        self._read = read
        self._encoding = encoding
        self._elements_left = _MAX_ELEMENTS + size_bytes // _BYTES_PER_ELEMENT
        self._window = b""
        self._base = 0
        """Position of the window."""

    def values(
        self, wanted: frozenset[int], optional: frozenset[int] = frozenset()
    ) -> dict[int, bytes]:
        """Raw values of the wanted top-level elements, as far as present.

        Those of `optional` are left out where they are too long; the others are refused.

        Raises
        ------
        Ended
            The data set ends inside an element.
        Refused
            It cannot be read, or only ambiguously.
        """
        values: dict[int, bytes] = {}
        last, length = -1, 0
        try:
            position = self._end_of_command()
            while self._reaches(position):
                tag, vr, length, start = self._element(position, self._encoding)
                if tag <= last:
                    raise unreadable(
                        f"has {_name(tag)} after {_name(last)}: not in ascending order"
                    )
                if last < 0:
                    self._check_encoding(position, self._encoding)
                if tag >> 16 == _DELIMITERS:
                    raise unreadable(f"has {_name(tag)} outside a sequence")
                last = tag
                if length == _UNDEFINED_LENGTH:
                    position = self._end_of_sequence(tag, vr, start)
                    continue
                if tag in wanted or (tag in optional and length <= MAX_VALUE_BYTES):
                    values[tag] = self._value(tag, start, length)
                position = start + length
        except Ended as ended:
            if length == _UNDEFINED_LENGTH:  # a reader may find its end earlier
                raise unreadable(f"ends inside {_name(last)}") from None
            ended.values = values
            raise
        return values

    def _end_of_command(self) -> int:
        """Position after the command elements that some data sets begin with.

        They keep their own encoding (PS3.7 section 6.3.1), in which pydicom reads them.
        """
        position, last, encoding = 0, -1, LITTLE_IMPLICIT
        while self._reaches(position) and self._bytes_at(position, 2) == b"\0\0":
            if self._encoding is BIG_EXPLICIT:
                raise unreadable("has command elements in big endian")
            if position == 0 and _looks_like_vr(self._bytes_at(4, 2)):
                encoding = self._encoding  # refused below if that is implicit VR
                self._check_encoding(0, encoding)
            tag, _, length, start = self._element(position, encoding)
            if tag <= last or length == _UNDEFINED_LENGTH:
                raise unreadable(f"has {_name(tag)} after {_name(last)} in its command elements")
            last, position = tag, start + length
        return position

    def _bytes_at(self, position: int, length: int) -> bytes:
        """Return bytes from `position` on, to which the window was moved."""
        return self._window[position - self._base : position - self._base + length]

    def _reaches(self, position: int) -> bool:
        """Whether the data set goes on at `position`; moves the window there.

        Raises
        ------
        Ended
            It ends before `position`.
        """
        if position - self._base + _ELEMENT_BYTES > len(self._window):
            # From the preceding byte on, which shows whether the value before is complete.
            before = min(position, 1)
            self._base = position - before
            self._window = self._read(self._base, WINDOW_BYTES)
            if len(self._window) < before:
                raise Ended
        return position < self._base + len(self._window)

    def _element(self, position: int, encoding: _Encoding) -> _Element:
        """Tag, VR and length of the element at `position`, to which the window was moved."""
        self._elements_left -= 1
        if self._elements_left < 0:
            raise unreadable("has too many elements")
        offset = position - self._base
        try:
            if encoding.implicit:
                return self._implicit(position, encoding)
            group, number, vr, length = encoding.explicit_vr.unpack_from(self._window, offset)
            if group == _DELIMITERS:  # first: its length may look like a VR
                return self._implicit(position, encoding)
            if vr in _SHORT_VRS:
                return group << 16 | number, vr, length, position + 8
            if vr not in _LONG_VRS:
                name = _name(group << 16 | number)
                raise unreadable(f"has no known VR at {name}: not in the negotiated syntax")
            (length,) = encoding.long_length.unpack_from(self._window, offset + 8)
        except struct.error:
            raise Ended from None
        return group << 16 | number, vr, length, position + 12

    def _implicit(self, position: int, encoding: _Encoding) -> _Element:
        offset = position - self._base
        group, number, length = encoding.implicit_vr.unpack_from(self._window, offset)
        return group << 16 | number, b"", length, position + 8

    def _check_encoding(self, position: int, encoding: _Encoding) -> None:
        """Refuse implicit VR whose first length looks like a VR: readers would take it for one."""
        if encoding.implicit and _looks_like_vr(self._bytes_at(position + 4, 2)):
            raise unreadable("begins an implicit VR data set with an element that looks explicit")

    def _value(self, tag: int, start: int, length: int) -> bytes:
        if length > MAX_VALUE_BYTES:
            raise unreadable(f"holds {length} bytes in {_name(tag)}")
        offset = start - self._base
        if offset + length > len(self._window):
            self._base, offset = start, 0
            self._window = self._read(start, WINDOW_BYTES)
        value = self._window[offset : offset + length]
        if len(value) < length:
            raise Ended
        return value

    def _end_of_sequence(self, tag: int, vr: bytes, position: int) -> int:
        """Position after a value of undefined length; a list, not recursion, keeps the depth.

        `tag` and `vr` are those of its element, `position` that of the value.
        """
        name = _name(tag)
        open_levels = [self._level(tag, vr, self._encoding)]
        while open_levels:
            level = open_levels[-1]
            if position == level.end:
                open_levels.pop()
                continue
            if position > level.end >= 0:
                raise unreadable(f"has an item in {name} that is longer than it states")
            if not self._reaches(position):
                raise Ended
            tag, vr, length, start = self._element(position, level.encoding)
            if tag == level.closing:
                open_levels.pop()
                position = start
                continue
            if tag != _ITEM if level.closing == _SEQUENCE_END else tag >> 16 == _DELIMITERS:
                raise unreadable(f"has {_name(tag)} in {name}, where it is not allowed")
            opened = None
            if tag == _ITEM:
                opened = self._item(level, length, start)
            elif length == _UNDEFINED_LENGTH:
                opened = self._level(tag, vr, level.encoding)
            if opened is None:
                position = start + length
                continue
            if len(open_levels) == _MAX_DEPTH:
                raise unreadable(f"nests sequences more than {_MAX_DEPTH} deep")
            open_levels.append(opened)
            position = start
        return position

    def _item(self, sequence: _Level, length: int, start: int) -> _Level | None:
        """Open an item of a sequence; None for a fragment of pixel data, which has no elements.

        Readers walk over the elements of an item whatever its length, and may leave it by them.
        """
        is_defined = length != _UNDEFINED_LENGTH
        if not sequence.has_items:
            if not is_defined:
                raise unreadable("has a fragment of undefined length in its pixel data")
            return None
        inner = sequence.encoding
        if inner.implicit and not self._encoding.implicit and self._reaches(start):
            self._check_encoding(start, inner)
        if is_defined:
            return _Level(_NO_TAG, inner, has_items=True, end=start + length)
        return _Level(_ITEM_END, inner, has_items=True)

    def _level(self, tag: int, vr: bytes, encoding: _Encoding) -> _Level:
        """Open a value of undefined length: a sequence or encapsulated pixel data."""
        is_sequence = vr in (b"SQ", b"UN") if vr else _may_be_sequence(tag)
        # UN of undefined length is always implicit little endian inside (PS3.5 section 6.2.2), but
        # pydicom reads it as big endian in a big endian data set.
        is_ambiguous = vr == b"UN" and self._encoding is BIG_EXPLICIT
        if is_ambiguous or not (is_sequence or tag == _PIXEL_DATA):
            raise unreadable(f"has an undefined length at {_name(tag)}")
        inner = LITTLE_IMPLICIT if vr == b"UN" else encoding
        return _Level(_SEQUENCE_END, inner, is_sequence)


def _looks_like_vr(two_bytes: bytes) -> bool:
    return two_bytes.isalpha() and two_bytes.isupper()


@lru_cache(1024)
def _may_be_sequence(tag: int) -> bool:
    """Whether an element without a VR may be a sequence, as its data dictionary entry says.

    pydicom ends the undefined length of other elements at the first bytes that look like its end.
    """
    try:
        return bool(dictionary_VR(tag) == "SQ")
    except KeyError:  # private
        return True


def unreadable(why: str) -> Refused:
    """Make the refusal of a data set that cannot be read, or only ambiguously."""
    return Refused(Status.HEADER_UNREADABLE, f"The data set {why}.")


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
