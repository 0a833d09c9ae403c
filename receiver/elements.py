"""Walks the top-level elements of a data set, whose values it skips by their lengths.

The input is treated as hostile, so every step is bounded: elements, nesting, value lengths, memory,
inflated bytes. Whatever readers of the stored file could take differently is refused: elements out
of ascending order (PS3.5 section 7.1) or doubled, of which pydicom takes the last; and encodings
that are ambiguous, of which a reader must guess one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final, TypeAlias

from receiver.status import Refused, Status

# Bytes of a data set, given position and number; fewer at its end. Positions never decrease by more
# than the number of bytes read last.
Read: TypeAlias = Callable[[int, int], bytes]

# VRs with a 16-bit length and with a 32-bit length (PS3.5 section 7.1.2).
_SHORT_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SEQUENCES: Final = (b"SQ", b"UN", b"")
"""VRs of elements that may be sequences; without a VR, in implicit VR, any element may be one."""
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_DELIMITERS: Final = 0xFFFE
"""Group of the elements that have no VR in any encoding (PS3.5 section 7.5)."""
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_PIXEL_DATA: Final = 0x7FE00010

_WINDOW_BYTES: Final = 16 * 1024
"""Read at once; holds nearly every header."""
_ELEMENT_BYTES: Final = 12
"""Longest tag, VR and length."""
_MAX_ELEMENTS: Final = 50_000
_BYTES_PER_ELEMENT: Final = 16
"""One more element is walked for each of these received, so that CPU time is bounded by them."""
_MAX_DEPTH: Final = 64
MAX_VALUE_BYTES: Final = 1024
"""Longest value that is read, far beyond that of any real header."""
MAX_INFLATED_BYTES: Final = 256 * 1024 * 1024
"""Longest deflated data set, when inflated."""


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

    def values(self, wanted: frozenset[int]) -> dict[int, bytes]:
        """Raw values of the wanted top-level elements, as far as present.

        Raises
        ------
        Ended
            The data set ends inside an element.
        Refused
            It cannot be read, or only ambiguously.
        """
        values: dict[int, bytes] = {}
        position, last = 0, -1
        try:
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
                if tag in wanted:
                    values[tag] = self._value(tag, start, length)
                position = start + length
        except Ended as ended:
            ended.values = values
            raise
        return values

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
            self._window = self._read(self._base, _WINDOW_BYTES)
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
        vr = self._window[position - self._base + 4 : position - self._base + 6]
        if encoding.implicit and vr.isalpha() and vr.isupper():
            raise unreadable("begins an implicit VR data set with an element that looks explicit")

    def _value(self, tag: int, start: int, length: int) -> bytes:
        if length > MAX_VALUE_BYTES:
            raise unreadable(f"holds {length} bytes in {_name(tag)}")
        offset = start - self._base
        if offset + length > len(self._window):
            self._base, offset = start, 0
            self._window = self._read(start, _WINDOW_BYTES)
        value = self._window[offset : offset + length]
        if len(value) < length:
            raise Ended
        return value

    def _end_of_sequence(self, tag: int, vr: bytes, position: int) -> int:
        """Position after a value of undefined length; a list, not recursion, keeps the depth.

        `tag` and `vr` are those of its element, `position` that of the value.
        """
        is_sequence = vr in _SEQUENCES
        # (closing tag, encoding inside) of every open sequence and item
        open_levels = [(_SEQUENCE_END, self._inside(tag, vr, self._encoding))]
        while open_levels:
            closing, inner = open_levels[-1]
            if not self._reaches(position):
                raise Ended
            tag, vr, length, start = self._element(position, inner)
            is_item = tag == _ITEM
            if tag == closing:
                open_levels.pop()
            elif (closing == _SEQUENCE_END) != is_item:
                raise unreadable(f"has {_name(tag)} where a sequence does not allow it")
            elif length != _UNDEFINED_LENGTH:
                position = start + length
                continue
            elif len(open_levels) == _MAX_DEPTH:
                raise unreadable(f"nests sequences more than {_MAX_DEPTH} deep")
            elif not is_item:
                open_levels.append((_SEQUENCE_END, self._inside(tag, vr, inner)))
            elif not is_sequence:
                raise unreadable("has a fragment of undefined length in its pixel data")
            else:
                open_levels.append((_ITEM_END, inner))
                if inner.implicit and not self._encoding.implicit and self._reaches(start):
                    self._check_encoding(start, inner)
            position = start
        return position

    def _inside(self, tag: int, vr: bytes, encoding: _Encoding) -> _Encoding:
        """Return the encoding inside a value of undefined length."""
        if vr not in _SEQUENCES and tag != _PIXEL_DATA:
            raise unreadable(f"has an undefined length at {_name(tag)}")
        # UN of undefined length is always implicit little endian inside (PS3.5 section 6.2.2).
        return LITTLE_IMPLICIT if vr == b"UN" else encoding


class Inflated:
    """Reads a deflated data set (PS3.5 section A.5), of which a few windows are in memory at once.

    Parameters
    ----------
    read : Read
        Reads the deflated bytes.
    """

    def __init__(self, read: Read) -> None:
        self._deflated = read
        self._taken = 0
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._base = 0
        """Position of what is in memory."""
        self._window = bytearray()

    def read(self, position: int, length: int) -> bytes:
        """Read from `position` on, as `Read` describes.

        Raises
        ------
        Refused
            The bytes are not deflated, or too many when inflated.
        """
        while self._base + len(self._window) < position + length:
            piece = self._next()
            if not piece:
                break
            if self._base + len(self._window) + len(piece) > MAX_INFLATED_BYTES:
                raise Refused(Status.TOO_LARGE, f"Inflates to over {MAX_INFLATED_BYTES >> 20} MiB.")
            self._window += piece
            passed = min(position - self._base, len(self._window))
            if passed > 0:
                del self._window[:passed]
                self._base += passed
        offset = position - self._base
        return bytes(self._window[offset : offset + length])

    def _next(self) -> bytes:
        """Inflate a little more; nothing at the end."""
        try:
            while not self._inflate.eof:
                deflated = self._inflate.unconsumed_tail
                if not deflated:
                    deflated = self._deflated(self._taken, _WINDOW_BYTES)
                    self._taken += len(deflated)
                if piece := self._inflate.decompress(deflated, _WINDOW_BYTES):
                    return piece
                if not deflated:
                    break
        except zlib.error:
            raise unreadable("is not deflated, but its transfer syntax says so") from None
        return b""


def unreadable(why: str) -> Refused:
    """Make the refusal of a data set that cannot be read, or only ambiguously."""
    return Refused(Status.HEADER_UNREADABLE, f"The data set {why}.")


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
