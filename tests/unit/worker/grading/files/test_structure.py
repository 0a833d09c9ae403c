"""The walk over a data set, against what pydicom reads of the same bytes."""

from __future__ import annotations

import mmap
import struct
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.support.builders.series_files import enhanced, t2_slices, write
from tests.support.paths import SAMPLE_DATA
from worker.grading.files.checks import UnsafeInstance
from worker.grading.files.structure import MAX_DEPTH, MAX_ELEMENTS, read_file_meta, walk

if TYPE_CHECKING:
    from pathlib import Path

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def count(ds: Dataset) -> int:
    """Elements and items up to Pixel Data, which is the last one."""
    n = 0
    for element in ds:
        n += 1
        if element.VR == "SQ":
            n += sum(1 + count(item) for item in element.value)
    return n


def encoded(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    file = BytesIO()
    dcmwrite(
        file,
        ds,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
    )
    return file.getvalue()


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True], ids=["defined length", "undefined length"])
def test_it_counts_what_a_parser_builds(syntax: str, undefined: bool) -> None:
    ds = enhanced(t2_slices(5))
    for sequence in (ds["PerFrameFunctionalGroupsSequence"], ds["SharedFunctionalGroupsSequence"]):
        sequence.is_undefined_length = undefined
        for item in sequence.value:
            item.is_undefined_length_sequence_item = undefined
    data = encoded(ds, syntax)
    found = walk(data, 0, syntax)
    delimiters = 2 + 5 + 1 if undefined else 0
    assert found.n_elements == count(ds) + delimiters
    assert (found.n_frames, found.rows, found.columns, found.samples) == (5, 40, 32, 1)
    assert found.pixel_data is not None
    assert data[found.pixel_data :] == ds.PixelData


def test_the_largest_of_several_values_counts() -> None:
    """Parsers differ in which of two equal tags they take."""
    data = b"".join(
        struct.pack("<HH2sHH", 0x0028, 0x0010, b"US", 2, rows) for rows in (64, 60_000, 64)
    )
    assert walk(data, 0, ExplicitVRLittleEndian).rows == 60_000


def test_elements_are_limited() -> None:
    element = struct.pack("<HH2sHH", 0x0009, 0x0010, b"US", 2, 1)
    assert walk(element * MAX_ELEMENTS, 0, ExplicitVRLittleEndian).n_elements == MAX_ELEMENTS
    with pytest.raises(UnsafeInstance, match="more than 100000 elements"):
        walk(element * (MAX_ELEMENTS + 1), 0, ExplicitVRLittleEndian)


def test_depth_is_limited() -> None:
    ds = Dataset()
    for _ in range(MAX_DEPTH + 1):
        outer = Dataset()
        outer.ReferencedImageSequence = [ds]
        ds = outer
    with pytest.raises(UnsafeInstance, match="nests sequences"):
        walk(encoded(ds), 0, ExplicitVRLittleEndian)


@pytest.mark.parametrize("lost", [1, 3, 9])
def test_a_truncated_data_set_is_left_to_the_parser(lost: int) -> None:
    ds = t2_slices(1)[0]
    del ds.PixelData
    found = walk(encoded(ds)[:-lost], 0, ExplicitVRLittleEndian)
    assert (found.rows, found.n_elements) == (40, len(ds))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_file_meta_gives_syntax_and_place_of_the_data_set(syntax: str, tmp_path: Path) -> None:
    write(tmp_path, t2_slices(1), syntax)
    data = (tmp_path / "001.dcm").read_bytes()
    meta = read_file_meta(data)
    assert meta is not None
    assert meta[0] == syntax
    assert walk(data, meta[1], syntax).rows == 40
    assert read_file_meta(data[132:]) is None


@pytest.mark.sample_data
def test_every_real_file_that_pydicom_reads_can_be_walked() -> None:
    walked = 0
    for path in sorted(SAMPLE_DATA.rglob("*")):
        if not path.is_file() or path.stat().st_size == 0:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            meta = read_file_meta(data)
            if meta is None or meta[0].endswith(".1.99"):
                continue
            rows = dcmread(path, stop_before_pixels=True).get("Rows")
            found = walk(data, meta[1], meta[0])
            assert found.rows == (rows or 0), path
            walked += 1
    assert walked > 100
