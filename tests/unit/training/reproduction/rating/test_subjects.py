"""Selection of the subjects: at most one scan per head, and exactly the requested ratings."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from core.errors import ConfigurationError
from training.cohorts.examples import Example, rating_of
from training.reproduction.rating.subjects import select_scans

EMPTY: Any = np.empty(0)


def _pool(heads: int, scans: int) -> list[Example]:
    rng = np.random.default_rng(0)
    return [
        Example(EMPTY, rng.poisson(load, 6), EMPTY, 0, head=f"{head:05d}")
        for head in range(heads)
        for load in rng.choice([0, 5, 15, 30, 45], scans, replace=False)
    ]


def test_selection_has_the_requested_ratings() -> None:
    pool = _pool(40, 4)
    requested = (48, 60, 79, 35, 6)
    chosen = select_scans(pool, 38, requested)
    ratings = rating_of(np.stack([pool[i].counts for i in chosen]))
    assert tuple(np.bincount(ratings.ravel(), minlength=5)) == requested
    assert max(Counter(pool[i].head for i in chosen).values()) == 1
    assert len(chosen) == 38


def test_impossible_selection_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match="No selection of 3 out of"):
        select_scans(_pool(3, 2), 3, (0, 0, 0, 0, 18))
