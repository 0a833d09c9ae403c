"""Header attributes are copied verbatim where they identify, and made valid elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from tests.support.builders.sources import classic, enhanced, uid
from worker.grading.reading.source import read_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import Dataset

    from worker.grading.records import Source


def read(folder: Path, edit: Callable[[Dataset], None]) -> Source:
    return read_source(classic(folder, edit).series)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PatientID", " CANARY-17*", "CANARY-17*"),  # trailing characters stay
        ("PatientSex", "F", "F"),
        ("PatientSex", "U", ""),
        ("PatientBirthDate", "19500101", "19500101"),
        ("PatientBirthDate", "***", ""),
        ("StudyDate", "2026.3.2", ""),
        ("StudyDate", "20260231", ""),
        ("StudyTime", "101500.5", "101500.5"),
        ("StudyTime", "10:15", ""),
        ("StudyTime", "2560", ""),
        ("StudyDescription", "x" * 71, "x" * 64),
    ],
)
def test_attributes_are_copied_or_made_valid(
    tmp_path: Path, keyword: str, value: str, expected: str
) -> None:
    source = read(tmp_path, lambda ds: setattr(ds, keyword, value))
    assert str(source.patient_and_study[keyword].value).strip() == expected


def test_missing_attributes_of_type_2_are_empty_and_optional_ones_absent(tmp_path: Path) -> None:
    def strip(ds: Dataset) -> None:
        for keyword in (
            *("PatientName", "PatientID", "AccessionNumber", "StudyDate", "PatientSex"),
            *("StudyDescription", "FrameOfReferenceUID", "SliceThickness", "SpecificCharacterSet"),
        ):
            del ds[keyword]

    source = read(tmp_path, strip)
    copied = source.patient_and_study
    assert [copied[k].value or "" for k in ("PatientID", "AccessionNumber", "StudyDate")] == [
        ""
    ] * 3
    assert "StudyDescription" not in copied
    assert "SpecificCharacterSet" not in copied
    assert source.frame_of_reference_uid is None
    assert {image.slice_thickness_mm for image in source.images} == {None}


def test_a_removed_identity_is_stated_only_with_its_method(tmp_path: Path) -> None:
    def remove(ds: Dataset, method: str) -> None:
        ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", method

    (tmp_path / "without").mkdir()
    without = read(tmp_path / "without", lambda ds: remove(ds, ""))
    assert "PatientIdentityRemoved" not in without.patient_and_study
    stated = read(tmp_path, lambda ds: remove(ds, "Names removed")).patient_and_study
    assert (stated.PatientIdentityRemoved, stated.DeidentificationMethod) == (
        "YES",
        "Names removed",
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("declared", "name", "written"),
    [
        ("ISO_IR 100", "Müller^Jörg", "ISO_IR 100"),
        ("ISO_IR 144", "Люкceмбypг", "ISO_IR 144"),
        ("", b"M\xfcller^J\xf6rg", "ISO_IR 100"),  # undeclared: read as Latin-1
        ("ISO_IR 999", "Canary^Patient", "ISO_IR 192"),  # unknown
    ],
)
def test_the_character_set_can_encode_the_texts(
    tmp_path: Path, declared: str, name: str | bytes, written: str
) -> None:
    def set_name(ds: Dataset) -> None:
        ds.SpecificCharacterSet, ds.PatientName = declared, name

    copied = read(tmp_path, set_name).patient_and_study
    assert copied.SpecificCharacterSet == written
    if isinstance(name, str):
        assert str(copied.PatientName) == name


@pytest.mark.parametrize(
    ("offset", "local"), [("+0900", "20:05"), ("-0330", "07:35"), ("nine", "11:05"), ("", "11:05")]
)
def test_times_are_converted_to_a_valid_offset(tmp_path: Path, offset: str, local: str) -> None:
    source = read(tmp_path, lambda ds: setattr(ds, "TimezoneOffsetFromUTC", offset))
    assert source.local(datetime(2026, 3, 2, 11, 5, tzinfo=UTC)).strftime("%H:%M") == local
    assert ("TimezoneOffsetFromUTC" in source.patient_and_study) == (local != "11:05")


def test_an_enhanced_instance_is_one_image_without_a_position(tmp_path: Path) -> None:
    (image,) = read_source(enhanced(tmp_path).series).images
    assert image.sop_instance_uid == uid("enhanced-instance")
    assert (image.position_mm, image.slice_thickness_mm) == (None, 4.0)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("SliceThickness", b"4\\5 "),
        ("SliceThickness", b"thick "),
        ("SharedFunctionalGroupsSequence", b"no items"),
        ("StudyDate", b"\xff\xfe"),
        ("TimezoneOffsetFromUTC", b"+9999 "),
    ],
)
def test_values_of_the_wrong_form_count_as_missing(
    tmp_path: Path, keyword: str, value: bytes
) -> None:
    def write_as_it_is(ds: Dataset) -> None:
        tag = Tag(keyword)
        ds[tag] = RawDataElement(
            tag, "UN", len(value), value, 0, is_implicit_VR=False, is_little_endian=True
        )

    source = read(tmp_path, write_as_it_is)
    assert source.images[0].slice_thickness_mm is None or keyword != "SliceThickness"
    assert source.utc_offset is None
    assert source.patient_and_study.PatientID
