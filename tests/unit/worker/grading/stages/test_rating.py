"""The six crops have the right position and orientation; enhancement increases contrast."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk

from core.reasons import Reason
from core.results import Level, RegistrationQuality, Side
from tests.support.builders.volumes import like, pose, volume_of
from worker.grading.errors import NotGradable
from worker.grading.records import Registration
from worker.grading.stages.rating import haar, prepare_rating
from worker.grading.stages.rating.crops import COLUMNS, ROWS, IndexMap

QUALITY = RegistrationQuality(1.0, 1.0, 1.0, 1.0)


def scan(
    to_patient: sitk.Transform,
    markers: dict[tuple[float, float, float], float],
    *,
    spacing: tuple[float, float, float] = (0.5, 0.5, 4.0),
    slices: int = 30,
) -> sitk.Image:
    """Dim volume around the patient's centre, with one bright voxel for each MNI point (LPS mm)."""
    image = sitk.Image((320, 400, slices), sitk.sitkFloat32)
    image.SetSpacing(spacing)
    centre = np.array(to_patient.TransformPoint((0.0, 0.0, 4.0)))
    image.SetOrigin((centre - np.array(spacing) * (np.array(image.GetSize()) - 1) / 2).tolist())
    for point, value in markers.items():
        image[image.TransformPhysicalPointToIndex(to_patient.TransformPoint(point))] = value
    return image


def registration(to_patient: sitk.Transform) -> Registration:
    return Registration(to_patient, sitk.Euler3DTransform(), QUALITY)


def pixel(x: float, y: float) -> tuple[float, float]:
    """(row, column) of an MNI point (LPS mm) in its side's crop: medial and anterior first."""
    return (y + 26) / 52 * ROWS - 0.5, (abs(x) - 2) / 40 * COLUMNS - 0.5


@pytest.mark.parametrize("to_patient", [pose(), pose((6, -4, 9), (5, -20, 30), 0.9)])
def test_markers_appear_at_their_pixels(to_patient: sitk.Transform) -> None:
    to_index = IndexMap.of(scan(to_patient, {}), to_patient)
    k = math.ceil(to_index.matrix[2, 2] * -4 + to_index.offset[2])
    left, right = (12.0, -20.0), (-32.0, 15.0)  # LPS: positive x is the patient's left
    markers = {}
    for point in (left, right):
        z = (k - to_index.offset[2] - to_index.matrix[2, :2] @ point) / to_index.matrix[2, 2]
        markers[*point, float(z)] = 100.0
    volume = volume_of(scan(to_patient, markers))
    crops = prepare_rating(volume, registration(to_patient), enhancement="none").crops[:, 0]
    for crop, point in ((crops[0], left), (crops[1], right)):
        bright = np.argwhere(crop > 0)
        assert np.abs(bright.mean(axis=0) - pixel(*point)).max() < 1.5
        assert len(bright) <= 9, "only the marker is bright"
    assert crops[2:].max() == 0, "crops take no voxels of other slices"


def test_corners_outline_the_crop_in_the_native_slice() -> None:
    to_patient = pose((0, 0, 10), (5, 5, 0))
    image = scan(to_patient, {})
    prepared = prepare_rating(
        volume_of(like(image, np.ones((30, 400, 320), np.float32))), registration(to_patient)
    )
    crop = prepared.placements[1]
    assert crop.side is Side.RIGHT
    for corner, (x, y) in zip(
        crop.corners_px, ((-2, -26), (-42, -26), (-42, 26), (-2, 26)), strict=True
    ):
        point = image.TransformContinuousIndexToPhysicalPoint((*corner, crop.slice_index))
        back = to_patient.GetInverse().TransformPoint(point)
        assert back[:2] == pytest.approx((x, y), abs=1e-6)


@pytest.mark.parametrize(("spacing", "step"), [(1.0, 4), (2.5, 2), (4.0, 1), (5.0, 1), (6.5, 1)])
def test_graded_slices_ascend_from_the_commissure(spacing: float, step: int) -> None:
    slices = int(120 / spacing)
    image = scan(pose(), {}, spacing=(0.5, 0.5, spacing), slices=slices)
    volume = volume_of(like(image, np.ones((slices, 400, 320), np.float32)))
    prepared = prepare_rating(volume, registration(pose()))
    assert prepared.crops.shape == (6, 1, ROWS, COLUMNS)
    assert prepared.crops.dtype == np.float32
    indices = [crop.slice_index for crop in prepared.placements]
    assert indices == [indices[0] + step * (i // 2) for i in range(6)]
    height = image.TransformIndexToPhysicalPoint((0, 0, indices[0]))[2]
    assert -4 <= height < -4 + spacing
    assert [(crop.level, crop.side) for crop in prepared.placements] == [
        (level, side) for level in Level for side in Side
    ]
    assert [crop.sop_instance_uid for crop in prepared.placements] == [
        volume.slices[k].sop_instance_uid for k in indices
    ]


def test_slices_outside_the_scan_are_not_gradable() -> None:
    image = scan(pose(), {}, slices=30)
    with pytest.raises(NotGradable) as rejection:
        prepare_rating(
            volume_of(like(image, np.ones((30, 400, 320), np.float32))[:, :, :15]),
            registration(pose()),
        )
    assert rejection.value.reason is Reason.OUTSIDE_FIELD_OF_VIEW


def test_both_sides_have_the_same_orientation() -> None:
    """A head that is its own mirror image gives the same crop on both sides."""
    image = scan(pose(), {})
    half = np.random.default_rng(0).random((30, 400, 160), np.float32)
    symmetric = like(image, np.concatenate([half, half[:, :, ::-1]], axis=2))
    crops = prepare_rating(volume_of(symmetric), registration(pose()), enhancement="none").crops
    assert crops[0::2] == pytest.approx(crops[1::2], abs=1e-4)


@pytest.mark.parametrize("transform", [haar.stationary, haar.block_group])
def test_gain_one_without_threshold_restores_the_image(transform: haar.Transform) -> None:
    image = np.random.default_rng(0).random((ROWS, COLUMNS), np.float32)
    assert transform(image, 1.0, 0.0) == pytest.approx(image, abs=1e-5)


@pytest.mark.parametrize("method", ["stationary", "block-group"])
def test_the_contrast_of_faint_dots_increases(method: str) -> None:
    random = np.random.default_rng(0)
    dots = np.zeros((ROWS, COLUMNS), bool)
    for row in range(10, ROWS - 10, 14):
        for column in range(10, COLUMNS - 10, 14):
            dots[row : row + 2, column : column + 2] = True
    image = (0.3 + 0.1 * dots + random.normal(0, 0.02, dots.shape)).astype(np.float32)

    def contrast_to_noise(picture: haar.Image) -> float:
        return float((picture[dots].mean() - picture[~dots].mean()) / picture[~dots].std())

    assert contrast_to_noise(haar.enhance(image, method)) > 1.3 * contrast_to_noise(image)


@pytest.mark.parametrize("method", ["stationary", "block-group", "none"])
def test_enhanced_images_stay_between_0_and_1(method: str) -> None:
    image = np.random.default_rng(0).random((ROWS, COLUMNS), np.float32)
    image[40:60, 40:60] = (image[40:60, 40:60] > 0.5) * 1.0
    enhanced = haar.enhance(image, method)
    assert enhanced.dtype == np.float32
    assert enhanced.shape == image.shape
    assert enhanced.min() >= 0
    assert enhanced.max() <= 1


def test_unknown_enhancement_is_refused() -> None:
    with pytest.raises(ValueError, match="stationary"):
        haar.enhance(np.zeros((8, 8), np.float32), "wavelet")
