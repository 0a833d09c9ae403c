"""Synthetic cohorts: resuming, labels by slice and side, real registration errors.

This is an integration test because it generates and registers a whole scan.
"""

from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigurationError
from training.cohorts.examples import crops_as_input, volume_as_input
from training.cohorts.folder import describe_cohort, load_cohort
from training.cohorts.synthetic import CohortPlan, build_cohort

PLAN = CohortPlan(seed=5, protocol="rating-paper")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    assert len(list(build_cohort(folder, PLAN, range(3, 4)))) == 1
    return folder


def test_existing_heads_are_kept(folder: Path) -> None:
    assert list(build_cohort(folder, PLAN, range(3, 4))) == []
    description = describe_cohort(folder)
    assert (description["scans"], description["heads"]) == (1, 1)


def test_folder_of_another_cohort_is_rejected(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="another cohort"):
        list(build_cohort(folder, CohortPlan(seed=6), range(1)))


def test_examples_have_both_inputs_labels_and_facts(folder: Path) -> None:
    (example,) = load_cohort(folder)
    assert example.head == "00003"
    assert 0 < example.counts.max() <= example.severity_count
    crops = crops_as_input(example.crops, "none")
    assert crops.shape == (6, 1, 112, 86)
    volume = volume_as_input(example.volume[None])
    assert volume.shape == (1, 1, 16, 512, 512)
    assert (volume.min(), volume.max()) == (0.0, 1.0)
    (central,) = load_cohort(folder, window=256)
    assert np.array_equal(central.volume, example.volume[:, 128:384, 128:384])
    assert example.facts["protocol"] == "rating-paper"
    # The scan was really registered: there is an error, and it is small.
    assert 0.05 < example.facts["registration_error_mm"] < 5


def test_ground_truth_agrees_with_the_severity_input(folder: Path) -> None:
    (example,) = load_cohort(folder)
    brain, nuclei, epvs = example.ground_truth.astype(np.float64)
    assert brain.shape == (16, 64, 64)
    assert 0.2 < brain.mean() < 0.6
    assert epvs.sum() > example.severity_count
    assert epvs[nuclei > 0].sum() > 0.8 * epvs.sum()
    # In the windowed input, nuclei are dark and EPVS are bright.
    blocks = example.volume.reshape(16, 64, 8, 64, 8).mean(axis=(2, 4))
    inside = (nuclei > 0.9) & (brain > 0.9)
    with_epvs = epvs > 0
    assert blocks[inside & with_epvs].mean() > 1.5 * blocks[inside & ~with_epvs].mean()
