"""Cohort folder: what is stored is read back, and the split keeps heads together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ConfigurationError
from training.cohorts.examples import Example
from training.cohorts.folder import (
    describe_cohort,
    load_cohort,
    require_severity_labels,
    split_validation,
    store_example,
    write_description,
)

EMPTY: Any = np.empty(0)


def _example() -> Example:
    rng = np.random.default_rng(0)
    return Example(
        crops=rng.integers(0, 65536, (6, 112, 86)).astype(np.uint16),
        counts=np.arange(6),
        volume=rng.integers(0, 256, (16, 32, 32)).astype(np.uint8),
        severity_count=9,
        ground_truth=np.ones((3, 2, 2, 2), np.float16),
        facts={"noise": 0.1},
    )


def test_examples_are_read_back(tmp_path: Path) -> None:
    stored = _example()
    write_description(tmp_path, {"kind": "synthetic"})
    for name in ("00003-0", "00003-1", "00004-0"):
        store_example(tmp_path / f"{name}.npz", stored)
    (tmp_path / "00005.rejected").touch()
    first, *_ = load_cohort(tmp_path)
    for field in ("crops", "counts", "volume", "ground_truth"):
        assert np.array_equal(getattr(first, field), getattr(stored, field))
    assert (first.head, first.severity_count, first.facts) == ("00003", 9, {"noise": 0.1})
    (central, *_), (without, *_) = (
        load_cohort(tmp_path, window=8),
        load_cohort(tmp_path, volumes=False),
    )
    assert np.array_equal(central.volume, stored.volume[:, 12:20, 12:20])
    assert without.volume.size == 0
    assert describe_cohort(tmp_path) == {
        "kind": "synthetic",
        "scans": 3,
        "heads": 2,
        "rejected_heads": 1,
    }


def test_incomplete_and_unlabelled_cohorts_are_not_used(tmp_path: Path) -> None:
    for read in (load_cohort, describe_cohort):
        with pytest.raises(ConfigurationError, match="is not a cohort"):
            read(tmp_path)
    write_description(tmp_path, {"kind": "site", "complete": False})
    for read in (load_cohort, describe_cohort):
        with pytest.raises(ConfigurationError, match="incomplete"):
            read(tmp_path)
    write_description(tmp_path, {"kind": "site", "complete": True, "severity_labels": False})
    with pytest.raises(ConfigurationError, match="no severity_count"):
        require_severity_labels(tmp_path)


def test_all_scans_of_a_head_are_in_the_same_part_of_the_split() -> None:
    examples = [
        Example(EMPTY, EMPTY, EMPTY, 0, head=f"{head:05d}") for head in range(22) for _ in range(3)
    ]
    training, validation = split_validation(examples)
    assert (len(training), len(validation)) == (60, 6)
    assert not {e.head for e in training} & {e.head for e in validation}
