"""Synthetic subjects: reproducibility and counts."""

import itertools

import numpy as np
import pytest

from core.results import Side
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
