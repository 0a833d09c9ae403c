"""The severity model's input is the windowed brain; its saliency is mapped back correctly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import SimpleITK as sitk

from core.results import ModelIdentity, RegistrationQuality
from tests.support.builders.records import INTENDED_USE
from tests.support.builders.volumes import acquire, head, like, pose, volume_of
from worker.grading.errors import NotGradable
from worker.grading.records import Registration, SeverityInput, SeverityOutput, Volume
from worker.grading.stages.severity import map_saliency, prepare_severity
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL = ModelIdentity("severity", "1", "0" * 64, "Severity", "synthetic", INTENDED_USE)
POSE = pose((8, -5, 10), (6, -12, 9), 0.92)
RIGID = pose((8, -5, 10), (6, -12, 9))


@pytest.fixture(scope="module")
def volume() -> Volume:
    return acquire(head(load_template()), POSE)


@pytest.fixture(scope="module")
def registration() -> Registration:
    return Registration(POSE, RIGID, RegistrationQuality(1.0, 1.0, 1.0, 0.92))


@pytest.fixture(scope="module")
def prepared(volume: Volume, registration: Registration) -> SeverityInput:
    return prepare_severity(volume, registration, load_template())


def answer(saliency: NDArray[Any]) -> SeverityOutput:
    return SeverityOutput(0.7, saliency.astype(np.float32), MODEL)


def test_window_keeps_the_brightest_tenth_white(prepared: SeverityInput) -> None:
    voxels = prepared.volume
    assert voxels.shape == (1, 1, 16, 512, 512)
    assert voxels.dtype == np.float32
    assert voxels.min() == 0
    assert voxels.max() == 1
    assert prepared.grid.GetSize() == (512, 512, 16)
    assert (sitk.GetArrayViewFromImage(prepared.grid) == voxels[0, 0]).all()

    def at(point: tuple[float, float, float]) -> float:
        """At an MNI point; the grid is rigid, the head 0.92 of the template."""
        inside = prepared.rigid.GetInverse().TransformPoint(POSE.TransformPoint(point))
        column, row, k = prepared.grid.TransformPhysicalPointToIndex(inside)
        return float(voxels[0, 0, k, row, column])

    assert at((4.0, -5.0, 8.0)) == 1, "lateral ventricle"
    assert at((27.0, -2.0, 4.0)) < 0.2, "putamen"
    assert at((-30.0, 25.0, 25.0)) == 0, "white matter"
    assert at((0.0, -95.0, 4.0)) == 0, "scalp is stripped"


def test_the_same_scan_always_gives_the_same_input(
    volume: Volume, registration: Registration, prepared: SeverityInput
) -> None:
    for _ in range(3):
        again = prepare_severity(volume, registration, load_template()).volume
        assert np.array_equal(again, prepared.volume)


def test_input_does_not_depend_on_the_scanner_scale(
    volume: Volume, registration: Registration, prepared: SeverityInput
) -> None:
    louder = volume_of(like(volume.image, 7.5 * sitk.GetArrayFromImage(volume.image) + 300))
    other = prepare_severity(louder, registration, load_template()).volume
    assert np.abs(other - prepared.volume).max() < 1e-3


def test_a_brain_without_contrast_is_not_gradable(
    volume: Volume, registration: Registration
) -> None:
    voxels = np.full_like(sitk.GetArrayFromImage(volume.image), 500)
    with pytest.raises(NotGradable):
        prepare_severity(volume_of(like(volume.image, voxels)), registration, load_template())


def test_saliency_is_mapped_back_to_its_place_in_the_scan(
    volume: Volume, registration: Registration, prepared: SeverityInput
) -> None:
    """A map with the resolution of the grid returns a point within one voxel."""
    saliency = np.zeros((16, 128, 128), np.float32)
    saliency[6, 50, 77] = 3.0
    result = map_saliency(answer(saliency), prepared, volume, registration, load_template())
    voxels = sitk.GetArrayFromImage(result.image)
    assert voxels.max() == pytest.approx(10)
    assert result.image.GetSize() == volume.image.GetSize()
    # Every fourth column and row of the grid: the middle of coarse pixel i is at 4 i + 1.5.
    on_grid = prepared.grid.TransformContinuousIndexToPhysicalPoint((4 * 77 + 1.5, 4 * 50 + 1.5, 6))
    expected = volume.image.TransformPhysicalPointToContinuousIndex(RIGID.TransformPoint(on_grid))
    weight = voxels / voxels.sum()
    k, row, column = (float((axis * weight).sum()) for axis in np.indices(voxels.shape))
    assert (column, row, k) == pytest.approx(expected, abs=1.0)


def test_activation_outside_the_brain_is_not_shown_and_does_not_scale(
    volume: Volume, registration: Registration, prepared: SeverityInput
) -> None:
    """In a none-to-mild scan the highest activation may lie at the edge of the field of view."""
    inside = np.zeros((16, 64, 64), np.float32)
    inside[6, 25, 38] = 0.01
    in_the_air = inside.copy()
    in_the_air[:, 0, 28:36] = 5.0
    template = load_template()
    expected, result = (
        map_saliency(answer(each), prepared, volume, registration, template)
        for each in (inside, in_the_air)
    )
    assert sitk.GetArrayViewFromImage(expected.image).max() == pytest.approx(10)
    assert np.array_equal(
        sitk.GetArrayViewFromImage(result.image), sitk.GetArrayViewFromImage(expected.image)
    )
    assert (result.statistics.mean, result.statistics.skewness) == (
        expected.statistics.mean,
        expected.statistics.skewness,
    )

    in_the_air[inside > 0] = 0
    nowhere = map_saliency(answer(in_the_air), prepared, volume, registration, template)
    assert sitk.GetArrayViewFromImage(nowhere.image).max() == 0
    assert (nowhere.statistics.mean, nowhere.statistics.share_above_7) == (0, 0)


def test_map_of_one_slice_fills_the_brain_in_the_field_of_view_and_nothing_else(
    volume: Volume, registration: Registration, prepared: SeverityInput
) -> None:
    flat = map_saliency(
        answer(np.ones((1, 16, 16))), prepared, volume, registration, load_template()
    )
    voxels = sitk.GetArrayFromImage(flat.image)
    assert set(np.unique(voxels.round(3))) == {0.0, 10.0}
    heights = np.unique(np.nonzero(voxels)[0])
    on_scan = sitk.Resample(
        load_template().brain_mask, volume.image, POSE.GetInverse(), sitk.sitkNearestNeighbor, 0
    )
    in_brain = sitk.GetArrayFromImage(on_scan) > 0
    assert not voxels[~in_brain].any()
    middle = heights[len(heights) // 2]  # the field of view is tilted: it cuts the others
    assert voxels[middle][in_brain[middle]].all()
    assert len(heights) < volume.image.GetSize()[2], "slices above and below stay empty"
    assert flat.statistics.mean == pytest.approx(10)
    assert flat.statistics.skewness == 0
    assert flat.statistics.share_above_7 == 1
    nuclei = sitk.GetArrayViewFromImage(load_template().basal_ganglia_mask).sum()
    brain = sitk.GetArrayViewFromImage(load_template().brain_mask).sum()
    assert nuclei / brain < flat.statistics.share_in_basal_ganglia < 3 * nuclei / brain


def test_activation_in_the_nuclei_is_counted_there(
    volume: Volume, registration: Registration, prepared: SeverityInput
) -> None:
    saliency = np.zeros((16, 64, 64), np.float32)
    at = prepared.rigid.GetInverse().TransformPoint(POSE.TransformPoint((25.0, -3.0, 4.0)))
    column, row, k = prepared.grid.TransformPhysicalPointToIndex(at)
    saliency[k, row // 8, column // 8] = 1.0
    result = map_saliency(answer(saliency), prepared, volume, registration, load_template())
    assert result.statistics.share_in_basal_ganglia > 0.9
    assert result.statistics.share_above_7 < 0.001
    assert result.statistics.skewness > 10


def test_no_activation_gives_zeros(
    volume: Volume, registration: Registration, prepared: SeverityInput
) -> None:
    result = map_saliency(
        answer(np.zeros((1, 16, 16))), prepared, volume, registration, load_template()
    )
    assert sitk.GetArrayViewFromImage(result.image).max() == 0
    assert (
        result.statistics.mean,
        result.statistics.skewness,
        result.statistics.share_above_7,
    ) == (0, 0, 0)
    assert result.statistics.share_in_basal_ganglia == 0
