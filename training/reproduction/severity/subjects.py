"""Subjects of the severity reproduction: as many of each class as in the paper, and their split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from core.errors import ConfigurationError
from training.cohorts.examples import SEVERE_COUNT, Example
from training.cohorts.folder import describe_cohort, load_cohort
from training.cohorts.synthetic import CohortPlan, build_cohort

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MILD, SEVERE = 143, 119
"""Subjects of each class (severity paper, Results)."""
POOL: Final = CohortPlan(seed=4104, protocol="severity-paper")
_HEADS: Final = 375
"""Two in five are none-to-mild, which is enough for 143 of them."""
_TEST: Final = 0.15
_VALIDATION: Final = 0.25


class Split(NamedTuple):
    """Indices of the subjects of each part."""

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def build_pool(folder: Path, *, processes: int) -> Iterator[str]:
    """Generate the scans to select from; yields one line per head and resumes."""
    yield from build_cohort(folder, POOL, range(_HEADS), processes=processes)


def load_subjects(folder: Path, window: int) -> list[Example]:
    """Return the first subjects of each class from the pool, or all subjects of a site's cohort.

    Parameters
    ----------
    folder : Path
    window : int
        Central rows and columns of the volumes to load; 0 for no volumes.

    Raises
    ------
    ConfigurationError
        The pool has too few subjects of a class.
    """
    examples = load_cohort(folder, volumes=bool(window), window=window)
    if describe_cohort(folder)["kind"] == "site":
        return examples
    severe = np.array([e.severity_count >= SEVERE_COUNT for e in examples])
    mild_first, severe_first = np.flatnonzero(~severe)[:MILD], np.flatnonzero(severe)[:SEVERE]
    if len(mild_first) < MILD or len(severe_first) < SEVERE:
        raise ConfigurationError(
            f"{folder} has {len(mild_first)} none-to-mild and {len(severe_first)} severe subjects, "
            f"but {MILD} and {SEVERE} are needed.",
            "Run the reproduction again; it resumes.",
        )
    return [examples[i] for i in sorted([*mild_first, *severe_first])]


def split_subjects(severe: NDArray[np.bool_], seed: int = 0) -> Split:
    """Split stratified by class: 15 % for the test, a quarter of the rest for validation.

    Severity paper, Data partitions.

    Parameters
    ----------
    severe : ndarray, shape (subjects,)
    seed : int

    Returns
    -------
    Split
        For 262 subjects 167, 56 and 39.
    """
    everyone = np.arange(len(severe))
    known, test = train_test_split(
        everyone, test_size=round(_TEST * len(severe)), stratify=severe, random_state=seed
    )
    training, validation = train_test_split(
        known, test_size=round(_VALIDATION * len(known)), stratify=severe[known], random_state=seed
    )
    return Split(np.sort(training), np.sort(validation), np.sort(test))
