"""Opening stored instances of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from core.errors import Failed
from tests.support.builders.series_files import t2_slices, write
from worker.grading.files import UnsafeInstance, check_pixels, open_instance

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "syntax",
    [
        *(ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian),
        *(JPEG2000Lossless, JPEGLSLossless, RLELossless),
    ],
)
def test_an_honest_instance_is_opened(syntax: str, tmp_path: Path) -> None:
    (original,) = t2_slices(1)
    write(tmp_path, [original], syntax)
    with open_instance(tmp_path / "001.dcm") as file:
        check_pixels(file)
        file.seek(0)
        ds = dcmread(file)
    assert (ds.Rows, ds.SOPInstanceUID) == (original.Rows, original.SOPInstanceUID)
    assert ds.pixel_array.tobytes() == original.PixelData


def test_a_missing_file_is_a_failure_of_the_node(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="FileNotFoundError") as failure:
        open_instance(tmp_path / "gone.dcm")
    assert failure.value.code == "spool-unreadable"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").touch()
    with pytest.raises(UnsafeInstance, match="empty"):
        open_instance(tmp_path / "empty.dcm")


def test_more_voxels_than_any_real_series_are_refused(tmp_path: Path) -> None:
    (ds,) = t2_slices(1)
    ds.Rows = ds.Columns = 4096
    ds.NumberOfFrames = 5
    write(tmp_path, [ds])
    with open_instance(tmp_path / "001.dcm") as file, pytest.raises(UnsafeInstance, match="5 × "):
        check_pixels(file)


def test_a_damaged_deflated_data_set_is_refused(tmp_path: Path) -> None:
    write(tmp_path, t2_slices(1), DeflatedExplicitVRLittleEndian)
    path = tmp_path / "001.dcm"
    content = path.read_bytes()
    path.write_bytes(content[:-40] + b"\xff" * 40)
    with pytest.raises(UnsafeInstance):
        open_instance(path)
