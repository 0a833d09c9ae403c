"""Registration finds heads in any pose, and refuses everything else."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk

from core.reasons import Reason
from core.results import RegistrationQuality
from tests.support.builders.volumes import acquire, head, like, pose, real_volume, volume_of
from worker.grading.errors import NotGradable
from worker.grading.stages.registration import check_quality, register
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from worker.grading.records import Registration, Volume

BASAL_GANGLIA = ((-23.0, -2.0, 4.0), (23.0, -2.0, 4.0))
GOOD = RegistrationQuality(0.85, 0.6, 1.0, 0.9)


@pytest.fixture(scope="module")
def real() -> Volume:
    return real_volume()


@pytest.fixture(scope="module")
def registered(real: Volume) -> Registration:
    return register(real, load_template())


def distance(found: sitk.Transform, truth: sitk.Transform) -> float:
    return max(
        float(np.linalg.norm(np.subtract(found.TransformPoint(p), truth.TransformPoint(p))))
        for p in BASAL_GANGLIA
    )


@pytest.mark.sample_data
def test_commissures_of_the_real_scan_are_found(real: Volume, registered: Registration) -> None:
    """At positions marked by hand, where the commissures cross the midline as dark bands."""
    check_quality(registered.quality)
    marked = {(0.0, -3.0, -4.0): (191, 235, 27), (0.0, 25.0, -2.0): (191, 293, 26)}
    for mni, index in marked.items():
        by_hand = real.image.TransformIndexToPhysicalPoint(index)
        for transform in (registered.affine, registered.rigid):
            error = np.linalg.norm(np.subtract(transform.TransformPoint(mni), by_hand))
            assert error < 5, f"{mni} is off by {error:.1f} mm"


@pytest.mark.sample_data
def test_the_result_does_not_depend_on_the_number_of_threads(
    real: Volume, registered: Registration
) -> None:
    again = register(real, load_template(), threads=1)
    assert again.affine.GetParameters() == registered.affine.GetParameters()
    assert again.quality == registered.quality


@pytest.mark.sample_data
@pytest.mark.parametrize("wrong", ["front and back swapped", "shuffled", "inverted"])
def test_other_images_than_t2_brains_are_not_gradable(real: Volume, wrong: str) -> None:
    voxels = sitk.GetArrayFromImage(real.image)
    changed = {
        "front and back swapped": voxels[:, ::-1],
        "shuffled": np.random.default_rng(0).permutation(voxels, axis=0),
        # T1-like: fluid dark, white matter bright, air still dark
        "inverted": np.where(voxels > 100, np.clip(900 - voxels, 0, None), voxels),
    }[wrong]
    quality = register(volume_of(like(real.image, changed)), load_template()).quality
    with pytest.raises(NotGradable) as rejection:
        check_quality(quality)
    assert rejection.value.reason is Reason.NOT_A_T2_BRAIN


@pytest.mark.parametrize(
    ("angles", "shift", "scale"),
    [
        ((0, 0, 0), (0, 0, 0), 1.0),
        ((14, -8, 12), (10, -14, 12), 0.9),
        ((-10, 6, -15), (-8, 9, 6), 1.08),
    ],
)
def test_known_pose_is_recovered(
    angles: tuple[float, float, float], shift: tuple[float, float, float], scale: float
) -> None:
    truth = pose(angles, shift, scale)
    found = register(acquire(head(load_template()), truth), load_template())
    check_quality(found.quality)
    assert distance(found.affine, truth) < 3
    assert found.quality.scale == pytest.approx(scale, abs=0.04)
    matrix = np.reshape(sitk.Euler3DTransform(found.rigid).GetMatrix(), (3, 3))
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-6)
    turn = np.reshape(pose(angles).GetMatrix(), (3, 3))
    assert np.rad2deg(np.arccos((np.trace(matrix @ turn.T) - 1) / 2)) < 5


def test_storage_order_does_not_matter() -> None:
    volume = acquire(head(load_template()), pose((5, 0, 5), (4, -6, 3)))
    flipped = sitk.Flip(volume.image, (True, True, False))
    found = register(volume_of(flipped), load_template())
    assert distance(found.affine, pose((5, 0, 5), (4, -6, 3))) < 3


def test_a_scan_without_basal_ganglia_is_not_gradable() -> None:
    volume = acquire(head(load_template()), pose())
    upper = volume_of(volume.image[:, :, 24:])
    with pytest.raises(NotGradable):
        check_quality(register(upper, load_template()).quality)


def test_an_empty_scan_is_not_gradable() -> None:
    empty = volume_of(sitk.Image((64, 64, 20), sitk.sitkFloat32))
    with pytest.raises(NotGradable) as rejection:
        register(empty, load_template())
    assert rejection.value.reason is Reason.NOT_A_T2_BRAIN


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"box_correlation": 0.69}, Reason.NOT_A_T2_BRAIN),
        ({"brain_correlation": 0.39}, Reason.NOT_A_T2_BRAIN),
        ({"scale": 0.79}, Reason.NOT_A_T2_BRAIN),
        ({"scale": 1.26}, Reason.NOT_A_T2_BRAIN),
        ({"box_correlation": float("nan")}, Reason.NOT_A_T2_BRAIN),
        ({"coverage": 0.94}, Reason.OUTSIDE_FIELD_OF_VIEW),
    ],
)
def test_each_quality_figure_is_checked(figures: dict[str, float], reason: Reason) -> None:
    check_quality(GOOD)
    with pytest.raises(NotGradable) as rejection:
        check_quality(dataclasses.replace(GOOD, **figures))
    assert rejection.value.reason is reason
    assert rejection.value.detail
