"""Datasets: labels belong to the images that the node's own preprocessing cuts."""

from pathlib import Path
from typing import Any

import numpy as np

from training.datasets import (
    Example,
    build_cohort,
    crops_as_input,
    describe_cohort,
    is_validation,
    load_cohort,
    rating_of,
    volume_as_input,
)


def test_ratings_of_counts() -> None:
    counts = np.array([0, 1, 10, 11, 20, 21, 40, 41, 90])
    assert rating_of(counts).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_scans_of_a_head_are_never_on_both_sides_of_the_split() -> None:
    empty: Any = np.empty(0)
    examples = [
        Example(empty, empty, empty, 0, head=f"{head:05d}") for head in range(22) for _ in range(3)
    ]
    held_back = is_validation(examples)
    assert held_back.sum() == 6
    heads = [
        {e.head for e, h in zip(examples, held_back, strict=True) if h is np.bool_(v)}
        for v in (0, 1)
    ]
    assert not heads[0] & heads[1]


def test_a_cohort_is_built_once_and_labelled_by_slice_and_side(tmp_path: Path) -> None:
    assert len(list(build_cohort(tmp_path, seed=5, numbers=range(3, 4)))) == 1
    assert list(build_cohort(tmp_path, seed=5, numbers=range(3, 4))) == []
    description = describe_cohort(tmp_path)
    assert (description["scans"], description["heads"]) == (1, 1)
    (example,) = load_cohort(tmp_path)
    assert example.head == "00003"
    assert 0 < example.counts.max() <= example.severity_count
    assert crops_as_input(example.crops).shape == (6, 1, 112, 86)
    volume = volume_as_input(example.volume[None])
    assert volume.shape == (1, 1, 16, 512, 512)
    assert (volume.min(), volume.max()) == (0.0, 1.0)
    (central,) = load_cohort(tmp_path, window=256)
    assert np.array_equal(central.volume, example.volume[:, 128:384, 128:384])
    # The crops with most bright dots are those with the highest counts.
    bright = (crops_as_input(example.crops) > 0.9).sum(axis=(1, 2, 3))
    assert np.corrcoef(bright, example.counts)[0, 1] > 0
