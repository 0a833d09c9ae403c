"""Location of the activation, on examples that can be computed by hand."""

import numpy as np
import pytest

from training.severity.saliency_scores import (
    saliency_figures,
    score_saliency,
    separation,
)


def _ground_truth() -> np.ndarray:
    """Brain everywhere; nuclei in one of 16 cells of 4 × 4 blocks, EPVS in a quarter of it."""
    regions = np.zeros((3, 4, 16, 16), dtype=np.float16)
    regions[0] = 1
    regions[1, :, 4:8, 8:12] = 1
    regions[2, :, 4:6, 8:10] = 2
    return regions


def test_uniform_activation_gives_the_shares_expected_by_chance() -> None:
    found = saliency_figures(np.ones((1, 4, 4), dtype=np.float32), _ground_truth())
    assert found.in_basal_ganglia == pytest.approx(found.basal_ganglia) == pytest.approx(1 / 16)
    assert found.on_epvs == pytest.approx(found.epvs) == pytest.approx(1 / 64)
    assert (found.skewness, found.share_above_7) == (0, 1)


@pytest.mark.parametrize(("cell", "least", "most"), [((1, 2), 0.4, 1), ((3, 0), 0, 0.01)])
def test_activation_in_one_cell(cell: tuple[int, int], least: float, most: float) -> None:
    activation = np.zeros((1, 4, 4), dtype=np.float32)
    activation[0, *cell] = 3
    found = saliency_figures(activation, _ground_truth())
    assert least <= found.in_basal_ganglia <= most
    assert found.skewness > 2


def test_activation_outside_the_brain_is_ignored() -> None:
    regions = _ground_truth()
    regions[0, :, 10:] = 0  # interpolation extends half a cell beyond each cell
    activation = np.zeros((1, 4, 4), dtype=np.float32)
    activation[0, 3, 3] = 100
    activation[0, 1, 2] = 1
    assert saliency_figures(activation, regions).in_basal_ganglia > 0.3


def test_no_activation() -> None:
    found = saliency_figures(np.zeros((1, 4, 4), dtype=np.float32), _ground_truth())
    assert (found.in_basal_ganglia, found.mean, found.share_above_7) == (0, 0, 0)


def test_separation() -> None:
    group = np.array([True] * 5 + [False] * 5)
    found = separation(range(10), group)
    assert found is not None
    assert found[0] == 0
    assert found[1] == pytest.approx(0.008, abs=0.001)
    assert separation([1] * 10, group) == (0.5, 1.0)
    assert separation(range(10), np.ones(10, dtype=bool)) is None


def test_scores_are_medians_over_the_subjects_predicted_severe() -> None:
    activation = np.zeros((1, 4, 4), dtype=np.float32)
    activation[0, 1, 2] = 1
    focused = saliency_figures(activation, _ground_truth())
    flat = saliency_figures(np.ones((1, 4, 4), dtype=np.float32), _ground_truth())
    found = score_saliency([focused, flat, flat], np.array([0.9, 0.2, 0.3]), np.array([30, 0, 12]))
    assert found["predicted_severe"] == 1
    assert found["in_basal_ganglia_times_chance"] == pytest.approx(
        focused.in_basal_ganglia * 16, abs=1e-3
    )
    assert found["skewness_correct_from_wrong"][0] == 0.75
    assert score_saliency([flat], np.array([0.1]), np.array([0])) == {"predicted_severe": 0}
