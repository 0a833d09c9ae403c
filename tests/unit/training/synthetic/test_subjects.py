"""Synthetic subjects: reproducibility, counts, and the map to MNI space."""

import itertools

import numpy as np
import pytest

from core.results import Side
from training.synthetic.pose import Pose
from training.synthetic.subjects import Subject, make_subject, scan_head


@pytest.fixture(scope="module")
def scans() -> list[Subject]:
    """Two scans of one head: without EPVS, then with a few."""
    return list(itertools.islice(scan_head(5, 0, "rating-paper"), 2))


def test_subject_is_determined_by_seed_and_number(scans: list[Subject]) -> None:
    again = make_subject(5, 0, "rating-paper")
    assert np.array_equal(scans[0].voxels, again.voxels)
    assert not np.array_equal(scans[1].voxels, again.voxels)


def test_scans_of_a_head_share_the_grid_but_not_the_epvs(scans: list[Subject]) -> None:
    first, second = scans
    assert first.grid is second.grid
    assert first.severity_count == 0
    assert second.severity_count > 0


def test_counts_of_both_sides_add_up_to_the_visible_epvs(scans: list[Subject]) -> None:
    subject = scans[1]
    left, right = subject.counts(Side.LEFT), subject.counts(Side.RIGHT)
    assert (left + right).tolist() == subject.visible.sum(axis=0).tolist()
    assert subject.severity_count == max(left.max(), right.max())


def test_pose_is_inverted() -> None:
    pose = Pose(np.random.default_rng(1))
    points = np.array([[23.0, -2, 4], [-23, -2, 4], [0, -3, -4], [40, 30, 50]])
    assert np.abs(pose.to_mni(pose.to_patient(points)) - points).max() < 0.01


def test_pose_agrees_with_its_transform() -> None:
    pose = Pose(np.random.default_rng(2))
    points = np.array([[20.0, -10, 8], [-31, 22, -4], [3, 3, 40]])
    transformed = np.array([pose.transform.TransformPoint(p) for p in points.tolist()])
    assert np.abs(transformed - pose.to_mni(points)).max() < 1e-3
