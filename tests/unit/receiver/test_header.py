"""The header reader agrees with pydicom on valid data sets, and refuses others with a status."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from receiver.header import Header, is_valid_uid, read_header
from receiver.status import Refused, Status
from tests.support.paths import SAMPLE_DATA

if TYPE_CHECKING:
    from pathlib import Path

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


def make_data_set() -> Dataset:
    """A header that is hard to walk: nested sequences of undefined length, private elements."""
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    item.StudyInstanceUID = "9.9.9"  # of another study; must not be read
    inner = Dataset()
    inner.StudyInstanceUID = "8.8.8"
    item.PurposeOfReferenceCodeSequence = Sequence([inner])
    item["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = True

    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 100"
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    data_set.SOPInstanceUID = "1.2.3.4"
    data_set.StudyDate = "20260131"
    data_set.AccessionNumber = "A-17"
    data_set.Modality = "MR"
    data_set.StationName = "ER_MR1"
    data_set.ReferencedStudySequence = Sequence([item, Dataset()])
    data_set["ReferencedStudySequence"].is_undefined_length = True
    data_set.PatientID = "Jörg-1"
    block = data_set.private_block(0x0019, "VENDOR", create=True)
    block.add_new(0x01, "OB", b"\x00\x01" * 40_000)
    data_set.StudyInstanceUID = "1.2.3"
    data_set.SeriesInstanceUID = "1.2.3.1"
    data_set.Rows = 2
    return data_set


def encode(data_set: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    write_dataset(buffer, data_set)
    encoded: bytes = buffer.getvalue()
    if syntax == DeflatedExplicitVRLittleEndian:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        encoded = deflate.compress(encoded) + deflate.flush()
    return encoded


def read(data: bytes, syntax: str) -> Header:
    return read_header(lambda start, n: data[start : start + n], len(data), syntax)


def status_of(data: bytes, syntax: str = ExplicitVRLittleEndian) -> Status:
    with pytest.raises(Refused) as refused:
        read(data, syntax)
    return refused.value.status


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_reads_every_kind_of_encoding(syntax: str) -> None:
    header = read(encode(make_data_set(), syntax), syntax)

    assert header.study_uid == "1.2.3"
    assert header.series_uid == "1.2.3.1"
    assert header.sop_instance_uid == "1.2.3.4"
    assert header.patient_id == "Jörg-1"
    assert header.accession_number == "A-17"
    assert header.study_date == "20260131"
    assert header.modality == "MR"
    assert (header.station_name, header.requested_priority) == ("ER_MR1", "")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_reads_the_requested_priority(syntax: str) -> None:
    data_set = make_data_set()
    data_set.RequestedProcedurePriority = "STAT"
    assert read(encode(data_set, syntax), syntax).requested_priority == "STAT"


def test_a_station_name_that_is_too_long_is_left_out() -> None:
    """It only concerns the order of grading: the instance is stored."""
    data_set = make_data_set()
    data_set.StationName = "x" * 2000
    assert read(encode(data_set, ExplicitVRLittleEndian), ExplicitVRLittleEndian).station_name == ""


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element in explicit VR little endian with a 16-bit length."""
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


ROWS = element(0x00280010, b"US", b"\x02\0")


def test_accepts_a_data_set_cut_after_its_uids() -> None:
    whole = encode(make_data_set(), ExplicitVRLittleEndian)
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 8) + bytes(8)

    for missing in range(1, len(pixels)):
        assert read((whole + pixels)[:-missing], ExplicitVRLittleEndian).study_uid == "1.2.3"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_walks_on_to_the_end(syntax: str) -> None:
    """Far behind the header, where the window has to be moved."""
    data_set = make_data_set()
    data_set.PixelData = bytes(300_000)
    data_set["PixelData"].VR = "OW"
    assert read(encode(data_set, syntax), syntax).study_uid == "1.2.3"

    data_set.DataSetTrailingPadding = b"\xff\xff\xff\xff"
    sound = encode(data_set, syntax)
    assert read(sound, syntax).study_uid == "1.2.3"
    if syntax != DeflatedExplicitVRLittleEndian:
        first = sound[:8]
        assert status_of(sound + first, syntax) is Status.HEADER_UNREADABLE


def test_refuses_elements_doubled_or_out_of_order() -> None:
    sound = encode(make_data_set(), ExplicitVRLittleEndian)
    assert sound.endswith(ROWS)

    second_id = element(0x00100020, b"LO", b"CANARY-8")
    assert status_of(sound + second_id) is Status.HEADER_UNREADABLE
    assert status_of(sound + ROWS) is Status.HEADER_UNREADABLE
    assert status_of(second_id + sound) is Status.HEADER_UNREADABLE


@pytest.mark.parametrize(
    "hidden",
    [
        # pydicom ends the undefined length of other VRs at the first bytes of a delimiter.
        struct.pack("<HH2sHL", 0x0029, 0x1001, b"OB", 0, 0xFFFFFFFF)
        + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0),
        # An unknown VR has a 16-bit length for pydicom and a 32-bit one for others.
        struct.pack("<HH2sHL", 0x0029, 0x1001, b"ZZ", 0, 0),
        # An end of an item ends the data set for pydicom.
        struct.pack("<HHL", 0xFFFE, 0xE00D, 0),
        # Nor may an item be implicit where a reader cannot tell.
        struct.pack("<HH2sHL", 0x0029, 0x1001, b"UN", 0, 0xFFFFFFFF)
        + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + struct.pack("<HH2sH", 0x0029, 0x1001, b"LO", 0)
        + bytes(0x4F4C)
        + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
        + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0),
    ],
)
def test_refuses_what_readers_take_differently(hidden: bytes) -> None:
    sound = encode(make_data_set(), ExplicitVRLittleEndian)

    assert status_of(sound + hidden) is Status.HEADER_UNREADABLE


def test_refuses_an_implicit_data_set_that_looks_explicit() -> None:
    first = struct.pack("<HHL", 0x0008, 0x0000, 0x4F4C) + bytes(0x4F4C)
    data = encode(make_data_set(), ImplicitVRLittleEndian)
    assert read(data, ImplicitVRLittleEndian).study_uid == "1.2.3"
    assert status_of(first + data, ImplicitVRLittleEndian) is Status.HEADER_UNREADABLE


def test_accepts_encapsulated_pixel_data() -> None:
    fragments = b"".join(
        struct.pack("<HHL", 0xFFFE, 0xE000, len(fragment)) + fragment
        # Of the last one, the length looks like the VR LO.
        for fragment in (b"", bytes(70_000), bytes(0x4F4C))
    )
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    padding = struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 0)
    data = encode(make_data_set(), ExplicitVRLittleEndian) + pixels

    assert read(data + fragments + end + padding, ExplicitVRLittleEndian).study_uid == "1.2.3"
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    assert status_of(data + item + end + end) is Status.HEADER_UNREADABLE


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_skips_command_elements_in_the_data_set(explicit: bool, syntax: str) -> None:
    commands = (
        element(0x00000100, b"US", b"\x01\0") + element(0x00000110, b"US", b"\x01\0")
        if explicit
        else struct.pack("<HHLHHHLH", 0, 0x0100, 2, 1, 0, 0x0110, 2, 1)
    )
    data = commands + encode(make_data_set(), syntax)

    if explicit and syntax == ImplicitVRLittleEndian:  # pydicom guesses, and so may others
        assert status_of(data, syntax) is Status.HEADER_UNREADABLE
        return
    assert read(data, syntax).study_uid == "1.2.3"
    assert dcmread(BytesIO(file_of(data, syntax))).StudyInstanceUID == "1.2.3"
    assert status_of(commands + data, syntax) is Status.HEADER_UNREADABLE


def file_of(data: bytes, syntax: str) -> bytes:
    """A Part 10 file with this data set."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    return bytes(128) + b"DICM" + element(0x00020010, b"UI", uid) + data


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_refuses_elements_that_a_reader_takes_for_those_of_the_file(syntax: str) -> None:
    """A Transfer Syntax UID at the beginning of the data set replaces that of the file."""
    other = ImplicitVRLittleEndian if syntax != ImplicitVRLittleEndian else ExplicitVRLittleEndian
    meta = element(0x00020010, b"UI", other.encode() + b"\0" * (len(other) % 2))
    data = meta + encode(make_data_set(), syntax)
    assert dcmread(BytesIO(file_of(data, syntax)), force=True).file_meta.TransferSyntaxUID == other

    assert status_of(data, syntax) is Status.HEADER_UNREADABLE


def test_refuses_an_undefined_length_that_readers_end_differently() -> None:
    """In implicit VR, where the data dictionary says that the element is no sequence."""
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(end)) + end
    rows, sequence = (struct.pack("<HHL", 0x0028, n, 0xFFFFFFFF) for n in (0x0011, 0x3000))
    data = encode(make_data_set(), ImplicitVRLittleEndian)
    empty = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    assert read(data + sequence + empty + end, ImplicitVRLittleEndian).study_uid == "1.2.3"
    assert status_of(data + rows + item + end, ImplicitVRLittleEndian) is Status.HEADER_UNREADABLE
    # Nor may it be cut: a reader would look for its end inside.
    assert status_of(data + sequence + empty, ImplicitVRLittleEndian) is Status.HEADER_UNREADABLE


def test_refuses_an_item_that_is_longer_than_it_states() -> None:
    """Its elements go on where a reader that skips it expects the next element."""
    item_end, end = (struct.pack("<HHL", 0xFFFE, n, 0) for n in (0xE00D, 0xE0DD))
    sequence = struct.pack("<HH2sHL", 0x0029, 0x1001, b"SQ", 0, 0xFFFFFFFF)
    first = element(0x00291001, b"LO", b"AB")
    nested = sequence + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + first + item_end + end
    data = encode(make_data_set(), ExplicitVRLittleEndian) + sequence

    def item(length: int, content: bytes) -> bytes:
        return struct.pack("<HHL", 0xFFFE, 0xE000, length) + content

    def accepted(content: bytes) -> bool:
        try:
            return read(data + content + end, ExplicitVRLittleEndian).study_uid == "1.2.3"
        except Refused:
            return False

    assert accepted(item(len(first), first) + item(0, b"") + item(len(nested), nested))
    assert not accepted(item(len(first) - 2, first) + item(0, b""))
    assert not accepted(item(len(nested) - len(end), nested) + item(0, b""))
    assert not accepted(item(len(item_end), item_end))


@pytest.mark.filterwarnings("ignore:Unknown encoding", "ignore:Incorrect value")
def test_a_broken_character_set_does_not_hinder() -> None:
    data = encode(make_data_set(), ExplicitVRLittleEndian)
    for broken in (b"ISO\0IR 100", b"ISO\xffIR 100", b"BOGUS     "):
        header = read(data.replace(b"ISO_IR 100", broken), ExplicitVRLittleEndian)
        assert header.patient_id.endswith("rg-1")


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
def test_refuses_a_missing_or_invalid_uid(keyword: str) -> None:
    data_set = make_data_set()
    setattr(data_set, keyword, "")
    assert status_of(encode(data_set, ExplicitVRLittleEndian)) is Status.UID_MISSING
    del data_set[keyword]
    assert status_of(encode(data_set, ExplicitVRLittleEndian)) is Status.UID_MISSING
    data_set.add_new(keyword, "UI", "1.2.3")
    data_set[keyword]._value = "../../etc/x"
    assert status_of(encode(data_set, ExplicitVRLittleEndian)) is Status.UID_INVALID


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("1.2.840.10008.1.1", True),
        ("2.25." + "1" * 59, True),
        ("2.25." + "1" * 60, False),
        ("1.2..3", False),
        ("1.02", False),
        ("1.2.", False),
        ("1.2.3/..", False),
        ("1.2.3\n", False),
        ("1.٢", False),  # a digit, but not one of ASCII
        ("", False),
    ],
)
def test_uid_rules(text: str, valid: bool) -> None:
    assert is_valid_uid(text) is valid


def test_refuses_an_empty_data_set() -> None:
    assert status_of(b"") is Status.UID_MISSING


def test_refuses_a_data_set_in_another_transfer_syntax() -> None:
    implicit = encode(make_data_set(), ImplicitVRLittleEndian)

    assert status_of(implicit, ExplicitVRLittleEndian) is Status.HEADER_UNREADABLE
    assert status_of(implicit, DeflatedExplicitVRLittleEndian) is Status.HEADER_UNREADABLE


def test_refuses_excessive_nesting() -> None:
    item_in_sequence = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0x0008, 0x1110, 0xFFFFFFFF
    )
    sequence = struct.pack("<HHL", 0x0008, 0x1110, 0xFFFFFFFF) + item_in_sequence * 100_000

    assert status_of(sequence, ImplicitVRLittleEndian) is Status.HEADER_UNREADABLE


def deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


def test_walks_over_as_many_elements_as_the_received_bytes_pay_for() -> None:
    """Enhanced MR has hundreds in each frame; deflated, a million fit into some kilobytes."""
    frame = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    frames = struct.pack("<HH2sHL", 0x5200, 0x9230, b"SQ", 0, 0xFFFFFFFF) + frame * 200_000
    data = encode(make_data_set(), ExplicitVRLittleEndian) + frames
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 2_000_000) + bytes(2_000_000)

    assert read(data + end + pixels, ExplicitVRLittleEndian).study_uid == "1.2.3"
    assert status_of(data + end) is Status.HEADER_UNREADABLE
    bomb = deflated(data + end + pixels)
    assert len(bomb) < 20_000
    assert status_of(bomb, DeflatedExplicitVRLittleEndian) is Status.HEADER_UNREADABLE


def test_inflates_a_bounded_number_of_bytes() -> None:
    sound = encode(make_data_set(), ExplicitVRLittleEndian)
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 300_000_000)
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = deflate.compress(sound + pixels)
    for _ in range(300):
        bomb += deflate.compress(bytes(1_000_000))

    assert status_of(bomb, DeflatedExplicitVRLittleEndian) is Status.TOO_LARGE


@settings(max_examples=300, deadline=None)
@given(data=st.data(), syntax=st.sampled_from(SYNTAXES))
def test_damaged_data_gives_a_header_or_a_status(data: st.DataObject, syntax: str) -> None:
    damaged = bytearray(encode(make_data_set(), syntax))
    for _ in range(data.draw(st.integers(1, 8))):
        position = data.draw(st.integers(0, min(len(damaged), 600) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(damaged)))

    try:
        header = read(bytes(damaged[:end]), syntax)
    except Refused:
        return
    assert is_valid_uid(header.study_uid)
    assert header.patient_id.isprintable()


@pytest.mark.sample_data
def test_agrees_with_pydicom_on_every_real_file() -> None:
    folders = [SAMPLE_DATA / name for name in ("study-brain-siemens", "reject", "syntaxes")]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.dcm"))]
    assert len(paths) > 200
    for path in paths:
        _compare_with_pydicom(path)


def _compare_with_pydicom(path: Path) -> None:
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = dcmread(file, stop_before_pixels=True)
    content = path.read_bytes()
    group_length = struct.unpack_from("<L", content, 140)[0]
    data = BytesIO(content[144 + group_length :]).getvalue()

    header = read(data, expected.file_meta.TransferSyntaxUID)

    assert header.sop_class_uid == expected.SOPClassUID, path
    assert header.sop_instance_uid == expected.SOPInstanceUID, path
    assert header.study_uid == expected.StudyInstanceUID, path
    assert header.series_uid == expected.SeriesInstanceUID, path
    assert header.patient_id == str(expected.get("PatientID", "") or ""), path
    assert header.modality == expected.Modality, path
