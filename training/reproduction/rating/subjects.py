"""Subjects of the rating reproduction: 96 synthetic subjects, rated as in the paper's Table 2.

The ratings of a synthetic scan cannot be specified, because the registration decides which slices
are graded. Each head is therefore scanned several times with different EPVS loads, and at most one
scan per head is selected such that every rating is as frequent as in the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from core.errors import ConfigurationError
from training.cohorts.examples import Example, rating_of
from training.cohorts.folder import describe_cohort, load_cohort
from training.cohorts.synthetic import CohortPlan, build_cohort

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SUBJECTS: Final = 96
IMAGES_OF_RATING: Final = (120, 150, 198, 90, 18)
"""Rating paper, Table 2."""
POOL: Final = CohortPlan(seed=4004, protocol="rating-paper", scans=4, volumes=False)
_HEADS: Final = 100
"""Four more than needed, because registrations may fail."""


def build_pool(folder: Path, *, processes: int) -> Iterator[str]:
    """Generate the scans to select from; yields one line per head and resumes."""
    yield from build_cohort(folder, POOL, range(_HEADS), processes=processes)


def load_subjects(folder: Path) -> list[Example]:
    """Return the 96 subjects selected from the pool, or all subjects of a site's cohort."""
    examples = load_cohort(folder, volumes=False)
    if describe_cohort(folder)["kind"] == "site":
        return examples
    return [examples[i] for i in select_scans(examples, SUBJECTS, IMAGES_OF_RATING)]


def select_scans(
    pool: Sequence[Example], subjects: int, images_of_rating: Sequence[int], seed: int = 0
) -> list[int]:
    """Select at most one scan per head such that the ratings have the requested frequencies.

    Parameters
    ----------
    pool : sequence of Example
    subjects : int
    images_of_rating : sequence of int
        Number of images with each rating, 6 · `subjects` in total.
    seed : int
        Decides between the many solutions.

    Returns
    -------
    list of int
        Indices into the pool.

    Raises
    ------
    ConfigurationError
        No selection has these frequencies.
    """
    ratings = np.array([np.bincount(rating_of(e.counts), minlength=5) for e in pool]).T
    heads = sorted({example.head for example in pool})
    of_head = np.array([[example.head == head for example in pool] for head in heads], dtype=float)
    wanted = np.array([*images_of_rating, subjects], dtype=float)
    found = milp(
        np.random.default_rng(seed).random(len(pool)),
        integrality=np.ones(len(pool)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(of_head, 0, 1),
            LinearConstraint(np.vstack([ratings, np.ones(len(pool))]), wanted, wanted),
        ],
        options={"mip_rel_gap": 0.05, "time_limit": 120},
    )
    if found.x is None:
        raise ConfigurationError(
            f"No selection of {subjects} out of {len(pool)} scans has these ratings.",
            "Generate a pool with more heads or more scans per head.",
        )
    return np.flatnonzero(found.x > 0.5).tolist()
