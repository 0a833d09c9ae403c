"""The paper-shaped cohort: at most one scan of a head, and exactly the ratings that are wanted."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from core.errors import ConfigurationError
from training.cohorts.examples import Example, rating_of
from training.reproduction.rating.subjects import choose

EMPTY: Any = np.empty(0)


def _pool(heads: int, scans: int) -> list[Example]:
    rng = np.random.default_rng(0)
    return [
        Example(EMPTY, rng.poisson(load, 6), EMPTY, 0, head=f"{head:05d}")
        for head in range(heads)
        for load in rng.choice([0, 5, 15, 30, 45], scans, replace=False)
    ]


def test_ratings_come_out_as_wanted() -> None:
    pool = _pool(40, 4)
    wanted = (48, 60, 79, 35, 6)
    chosen = choose(pool, 38, wanted)
    ratings = rating_of(np.stack([pool[i].counts for i in chosen]))
    assert tuple(np.bincount(ratings.ravel(), minlength=5)) == wanted
    assert max(Counter(pool[i].head for i in chosen).values()) == 1
    assert len(chosen) == 38


def test_an_impossible_wish_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="No choice of 3 scans"):
        choose(_pool(3, 2), 3, (0, 0, 0, 0, 18))
