"""Fuzzes the receiver's walk over data sets: ``python -m tests.fuzz.elements --minutes 10``.

Inserts elements, sequences and damage into valid data sets. Of each one that the receiver would
accept, pydicom must read the same patient, study, instance and accession number, or nothing: the
receiver decides by its own reading to which study an instance belongs, and the report copies what
pydicom reads.
"""

from __future__ import annotations

import argparse
import logging
import random
import struct
import time
import warnings
import zlib
from collections import Counter
from io import BytesIO
from typing import TYPE_CHECKING, Final

import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from core.text import column_text
from receiver.header import read_header
from receiver.spool import file_head
from receiver.status import Refused
from tests.support.builders.mr_series import make_image

if TYPE_CHECKING:
    from pydicom import Dataset

SYNTAXES: Final = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
_TAGS: Final = (
    *(0x00000100, 0x00000110, 0x00020010, 0x00080000, 0x00080050, 0x00081111, 0x00100020),
    *(0x0020000D, 0x00280010, 0x00280011, 0x00291001, 0x00400275, 0x7FE00010, 0xFFFCFFFC),
    *(0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD),
)
_LONG: Final = (b"OB", b"OW", b"SQ", b"UN", b"UT")
_VRS: Final = (*_LONG, b"LO", b"SH", b"UI", b"US", b"ZZ")
_UNDEFINED: Final = 0xFFFFFFFF
_KEYWORDS: Final = ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "AccessionNumber")


class Damage:
    """Makes damaged data sets of one transfer syntax.

    Parameters
    ----------
    syntax : str
    chance : random.Random
    """

    def __init__(self, syntax: str, chance: random.Random) -> None:
        self._syntax = syntax
        self._chance = chance
        self._order = ">" if syntax == ExplicitVRBigEndian else "<"
        self._parts = self._encode()

    def make(self) -> bytes:
        """Return the next data set."""
        chance, parts = self._chance, list(self._parts)
        for _ in range(chance.randrange(1, 4)):
            place = chance.choice((0, len(parts), chance.randrange(len(parts))))
            if chance.random() < 0.7:
                parts.insert(place, self._element(0))
            else:
                part = bytearray(parts[place - 1])
                part[chance.randrange(min(len(part), 40))] = chance.randrange(256)
                parts[place - 1] = bytes(part)
        data = b"".join(parts)
        if self._syntax == DeflatedExplicitVRLittleEndian:
            deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            data = deflate.compress(data) + deflate.flush()
        return data

    def _encode(self) -> list[bytes]:
        """Encode the elements of an image one by one."""
        image = make_image(size=2)
        image.PatientID = "CANARY-7"
        image["PixelData"].VR = "OW"
        parts = []
        for element in image:
            buffer = DicomBytesIO()
            buffer.is_implicit_VR = self._syntax == ImplicitVRLittleEndian
            buffer.is_little_endian = self._order == "<"
            alone = pydicom.Dataset()
            alone.add(element)
            write_dataset(buffer, alone)
            parts.append(bytes(buffer.getvalue()))
        return parts

    def _element(self, depth: int) -> bytes:
        chance = self._chance
        tag, vr = chance.choice(_TAGS), chance.choice(_VRS)
        if is_undefined := chance.random() < 0.4:
            value = b"".join(self._item(depth + 1) for _ in range(chance.randrange(3)))
            if chance.random() < 0.9:
                value += self._header(0xFFFEE0DD, 0)
        else:
            end = self._header(0xFFFEE0DD, 0) + b"CANARY-8"
            value = chance.choice((b"", b"CANARY-8", b"1.2.840.10008.1.2\0", end, bytes(8)))
        length = _UNDEFINED if is_undefined else len(value)
        if chance.random() < 0.05:
            length = chance.choice((0, 2, 0x4F4C, 0xFFFFFFFE))
        implicit = self._syntax == ImplicitVRLittleEndian
        if implicit != (chance.random() < 0.1):
            return self._header(tag, length) + value
        head = struct.pack(f"{self._order}HH2s", tag >> 16, tag & 0xFFFF, vr)
        if is_undefined or vr in _LONG:
            return head + struct.pack(f"{self._order}HL", 0, length) + value
        return head + struct.pack(f"{self._order}H", length & 0xFFFF) + value

    def _item(self, depth: int) -> bytes:
        chance = self._chance
        content = b""
        if depth < 4:
            content = b"".join(self._element(depth) for _ in range(chance.randrange(3)))
        if chance.random() < 0.5:
            return self._header(0xFFFEE000, len(content)) + content
        return self._header(0xFFFEE000, _UNDEFINED) + content + self._header(0xFFFEE00D, 0)

    def _header(self, tag: int, length: int) -> bytes:
        return struct.pack(f"{self._order}HHL", tag >> 16, tag & 0xFFFF, length)


def read_by_receiver(data: bytes, syntax: str) -> tuple[str, ...] | None:
    """Return what the receiver reads; None if it refuses the data set."""
    try:
        header = read_header(lambda start, n: data[start : start + n], len(data), syntax)
    except Refused:
        return None
    return header.patient_id, header.study_uid, header.sop_instance_uid, header.accession_number


def read_by_pydicom(data: bytes, syntax: str, *, headers: bool) -> tuple[str, ...] | None:
    """Return what pydicom reads in the stored file; None if it raises an exception."""
    file = BytesIO(file_head("1.2", "1.2.3", syntax) + data)
    try:
        found = pydicom.dcmread(file, stop_before_pixels=headers)
        return tuple(_text(found, keyword) for keyword in _KEYWORDS)
    except Exception:  # noqa: BLE001 - foreign bytes may raise anything
        return None


def _text(data_set: Dataset, keyword: str) -> str:
    value = data_set.get(keyword)
    text = value if isinstance(value, str) else "\\".join(value or ())
    return column_text(text)[: 16 if keyword == "AccessionNumber" else None]


def find_differences(seed: int, n_examples: int) -> tuple[list[str], Counter[str]]:
    """Try `n_examples` data sets.

    Returns
    -------
    differences : list of str
        Transfer syntax, both readings and the data set in hexadecimal digits.
    tally : Counter
    """
    chance = random.Random(seed)
    damages = {syntax: Damage(syntax, chance) for syntax in SYNTAXES}
    tally: Counter[str] = Counter()
    differences = []
    logging.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(n_examples):
            syntax = SYNTAXES[number % len(SYNTAXES)]
            data = damages[syntax].make()
            ours = read_by_receiver(data, syntax)
            tally["refused" if ours is None else "accepted"] += 1
            for headers in (True, False) if ours is not None else ():
                theirs = read_by_pydicom(data, syntax, headers=headers)
                if theirs not in (None, ours):
                    differences.append(f"{syntax} {ours} {theirs} {data.hex()}")
    logging.disable(logging.NOTSET)
    return differences, tally


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began, seed, total = time.monotonic(), options.seed, Counter[str]()
    while time.monotonic() - began < options.minutes * 60:
        differences, tally = find_differences(seed, 10_000)
        total += tally
        seed += 1
        if differences:
            raise SystemExit("\n".join(differences))
    print(f"no difference in {total['accepted']} accepted, {total['refused']} refused data sets")


if __name__ == "__main__":
    main()
