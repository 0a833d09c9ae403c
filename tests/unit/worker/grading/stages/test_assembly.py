"""Assembly: every voxel has the right value at the right position in patient space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

from core.errors import Failed
from core.reasons import Reason
from tests.support.builders.series_files import (
    AXIAL,
    OBLIQUE,
    closed_study,
    enhanced,
    expected_volume,
    stored_study,
    stored_values,
    t2_slices,
    write,
)
from tests.support.paths import SAMPLE_DATA
from worker.grading.errors import NotGradable
from worker.grading.records import SelectedSeries, SliceLocation, Volume
from worker.grading.stages.assembly import read_volume
from worker.grading.stages.selection import select_series

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom.dataset import Dataset

    from worker.grading.records import Float32Array

MIRRORED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def volume_of(folder: Path, slices: Sequence[Dataset]) -> Volume:
    return read_volume(select_series(stored_study(folder, slices)).require_series())


def voxels_of(volume: Volume) -> Float32Array:
    return sitk.GetArrayFromImage(volume.image)


@pytest.mark.sample_data
def test_sample_series_agrees_with_gdcm() -> None:
    folder = SAMPLE_DATA / "study-brain-siemens" / "t2-tse-axial"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    by_gdcm = sitk.Cast(reader.Execute(), sitk.sitkFloat32)

    image = read_volume(select_series(closed_study(folder)).require_series()).image

    assert image.GetSize() == (384, 512, 56)
    assert np.array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(by_gdcm))
    for corner in ((0, 0, 0), (383, 511, 55), (0, 511, 30)):
        assert image.TransformIndexToPhysicalPoint(corner) == pytest.approx(
            by_gdcm.TransformIndexToPhysicalPoint(corner), abs=0.01
        )


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE, MIRRORED])
def test_voxel_positions_agree_with_the_header(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    slices = t2_slices(orientation=orientation)
    volume = volume_of(tmp_path, slices[::-1])

    assert np.array_equal(voxels_of(volume), expected_volume(20))
    row, column = np.array(orientation).reshape(2, 3)
    for k, ds in enumerate(slices):
        # PS3.3 equation C.7.6.2.1-1, pixel (row 7, column 3)
        place = np.array(ds.ImagePositionPatient) + 3 * 0.8 * row + 7 * 0.9 * column
        assert volume.image.TransformIndexToPhysicalPoint((3, 7, k)) == pytest.approx(
            place, abs=0.01
        )
        assert volume.slices[k].sop_instance_uid == ds.SOPInstanceUID


def test_classic_and_enhanced_give_the_same_volume(tmp_path: Path) -> None:
    slices = t2_slices(orientation=OBLIQUE, RescaleSlope=2, RescaleIntercept=-100)
    classic = volume_of(tmp_path / "classic", slices).image
    # In reverse, and split over two instances: frames come in any order.
    parts = [enhanced(slices[:9:-1]), enhanced(slices[9::-1])]
    parts[1].SOPInstanceUID += ".1"
    multi_frame = volume_of(tmp_path / "enhanced", parts).image

    assert np.array_equal(
        sitk.GetArrayViewFromImage(classic), sitk.GetArrayViewFromImage(multi_frame)
    )
    assert classic.GetOrigin() == multi_frame.GetOrigin()
    assert classic.GetSpacing() == multi_frame.GetSpacing()
    assert classic.GetDirection() == multi_frame.GetDirection()
    assert np.array_equal(sitk.GetArrayViewFromImage(classic), expected_volume(20) * 2 - 100)


def test_rescale_is_applied_slice_by_slice(tmp_path: Path) -> None:
    slices = t2_slices()
    series = select_series(stored_study(tmp_path, slices)).require_series()
    for k, location in enumerate(series.slices):
        ds = dcmread(location.path)
        ds.RescaleSlope, ds.RescaleIntercept = k + 1, -k
        ds.save_as(location.path)
    factors = np.arange(20, dtype=np.float32)[:, None, None]
    assert np.array_equal(
        voxels_of(read_volume(series)), expected_volume(20) * (factors + 1) - factors
    )


def test_signed_pixels_keep_their_sign(tmp_path: Path) -> None:
    slices = t2_slices(PixelRepresentation=1)
    signed = (stored_values(20).astype(np.int32) - 20000).astype("<i2")
    for ds, pixels in zip(slices, signed, strict=True):
        ds.PixelData = pixels.tobytes()
    assert np.array_equal(voxels_of(volume_of(tmp_path, slices)), signed.astype(np.float32))


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    upright = expected_volume(20)
    slices = t2_slices(PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(voxels_of(volume_of(tmp_path, slices)), upright.max() - upright)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_transfer_syntax_does_not_change_a_voxel(tmp_path: Path, syntax: str, kind: str) -> None:
    slices = t2_slices()
    write(tmp_path, slices if kind == "classic" else [enhanced(slices)], syntax)
    volume = read_volume(select_series(closed_study(tmp_path)).require_series())
    assert np.array_equal(voxels_of(volume), expected_volume(20))


@pytest.mark.sample_data
def test_real_encoders_give_the_same_pixels() -> None:
    """One image, written in seven transfer syntaxes, as nine slices of one volume."""
    paths = sorted((SAMPLE_DATA / "syntaxes" / "mosaic-7-transfer-syntaxes").iterdir())
    slices = tuple(
        SliceLocation(path, f"2.25.{k}", MRImageStorage, None, (0.0, 0.0, float(k)))
        for k, path in enumerate(paths)
    )
    series = SelectedSeries("2.25.1", "2.25.2", slices, AXIAL, (3.25, 3.25), 1.0)
    voxels = voxels_of(read_volume(series))

    assert voxels.max() > 500
    assert all(np.array_equal(image, voxels[0]) for image in voxels[1:])


def test_undecodable_slice_is_named(tmp_path: Path) -> None:
    write(tmp_path, t2_slices(), RLELossless)
    series = select_series(closed_study(tmp_path)).require_series()
    damaged = series.slices[12].path
    damaged.write_bytes(damaged.read_bytes()[:-300])

    with pytest.raises(NotGradable) as caught:
        read_volume(series)

    assert caught.value.reason is Reason.UNDECODABLE_PIXELS
    assert caught.value.detail.startswith("slice 13 of 20, transfer syntax 1.2.840.10008.1.2.5: ")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless])
def test_truncated_enhanced_pixels_are_undecodable(tmp_path: Path, syntax: str) -> None:
    write(tmp_path, [enhanced(t2_slices())], syntax)
    series = select_series(closed_study(tmp_path)).require_series()
    path = series.slices[0].path
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(NotGradable) as caught:
        read_volume(series)
    assert caught.value.reason is Reason.UNDECODABLE_PIXELS


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize(("slope", "stored"), [("1e38", 4000), ("1e39", 0)], ids=["inf", "NaN"])
def test_values_that_are_not_finite_are_refused_before_any_model_sees_them(
    tmp_path: Path, slope: str, stored: int
) -> None:
    """The models are given finite values only; see `docs/results/precision.md`."""
    slices = t2_slices(RescaleSlope=slope, RescaleIntercept=0)
    for ds in slices:
        ds.PixelData = np.full((ds.Rows, ds.Columns), stored, np.uint16).tobytes()
    with pytest.raises(NotGradable) as caught:
        volume_of(tmp_path, slices)
    assert caught.value.reason is Reason.UNDECODABLE_PIXELS
    assert caught.value.detail.endswith(": ValueError")


@pytest.mark.filterwarnings("ignore")  # pydicom's warnings about the damaged bytes
@settings(max_examples=30, deadline=None)
@given(
    syntax=st.sampled_from([ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_damage_to_a_slice_ends_in_a_volume_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, syntax: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    write(folder, t2_slices(16), syntax)
    series = select_series(closed_study(folder)).require_series()
    content = bytearray(series.slices[5].path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(132, len(content), 20):
        content[place] = rng.integers(256)
    series.slices[5].path.write_bytes(content)
    try:
        assert np.isfinite(voxels_of(read_volume(series))).all()
    except NotGradable as rejection:
        assert rejection.reason is Reason.UNDECODABLE_PIXELS  # noqa: PT017 - both results are correct


def test_a_missing_file_is_a_failure_of_the_node(tmp_path: Path) -> None:
    series = select_series(stored_study(tmp_path, t2_slices())).require_series()
    series.slices[3].path.unlink()
    with pytest.raises(Failed) as caught:
        read_volume(series)
    assert caught.value.code == "spool-unreadable"
