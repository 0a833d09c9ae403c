"""A synthetic cohort shaped like that of the rating paper: 96 subjects, ratings as in its Table 2.

Ratings cannot be ordered from the phantom: which slices are graded, and so how many tubes lie in
them, is up to the registration. Each head is therefore scanned several times with other EPVS loads,
and one scan of each is chosen so that as many images have every rating as in the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from core.errors import ConfigurationError
from training.cohorts.examples import Example, describe_cohort, load_cohort, rating_of
from training.cohorts.synthetic import CohortPlan, build_cohort

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SUBJECTS: Final = 96
IMAGES_OF_RATING: Final = (120, 150, 198, 90, 18)
"""Rating paper, Table 2."""
POOL: Final = CohortPlan(seed=4004, protocol="rating-paper", scans=4, volumes=False)
_HEADS: Final = 100
"""Four more than needed: a registration may be refused."""


def build_pool(folder: Path, *, processes: int) -> Iterator[str]:
    """Make the scans to choose from; yields a line a head. Resumes."""
    yield from build_cohort(folder, POOL, range(_HEADS), processes=processes)


def subjects_of(folder: Path) -> list[Example]:
    """Take the 96 subjects out of the pool, or a site's cohort as it is."""
    examples = load_cohort(folder, volumes=False)
    if describe_cohort(folder)["kind"] == "site":
        return examples
    return [examples[i] for i in choose(examples, SUBJECTS, IMAGES_OF_RATING)]


def choose(
    pool: Sequence[Example], subjects: int, images_of_rating: Sequence[int], seed: int = 0
) -> list[int]:
    """Choose at most one scan of each head so that the ratings come out as wanted.

    Parameters
    ----------
    pool : sequence of Example
    subjects : int
    images_of_rating : sequence of int
        Images wanted of each rating, 6 · `subjects` in all.
    seed : int
        Which of the many solutions is taken.

    Returns
    -------
    list of int
        Indices into the pool.

    Raises
    ------
    ConfigurationError
        No choice has these numbers.
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
            f"No choice of {subjects} scans out of {len(pool)} has these ratings.",
            "Make a pool of more heads or more scans of each.",
        )
    return np.flatnonzero(found.x > 0.5).tolist()
