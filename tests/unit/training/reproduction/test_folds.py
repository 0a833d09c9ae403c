"""Folds: by subject, with like shares of every rating, the same for every arm."""

from dataclasses import replace

import numpy as np

from training.networks.rating import FILTERS
from training.rating_recipe import shipped_plan
from training.reproduction.folds import FOLDS, arms, folds


def test_every_fold_has_its_share_of_every_rating() -> None:
    highest = np.repeat([0, 1, 2, 3, 4], [20, 10, 30, 25, 10])
    ratings = np.zeros((len(highest), 6), dtype=np.int64)
    ratings[:, 3] = highest
    of_subject = folds(ratings, seed=1)
    for rating in range(5):
        sizes = np.bincount(of_subject[highest == rating], minlength=FOLDS)
        assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(of_subject, folds(ratings, seed=1))
    assert not np.array_equal(of_subject, folds(ratings, seed=2))


def test_the_arms_differ_in_what_they_are_named_after_only() -> None:
    by_name = {arm.name: arm for arm in arms(300, 3)}
    paper = by_name["stationary"].plan
    assert (paper.epochs, paper.batch, paper.rate, paper.loss) == (300, 32, 1e-3, "cross-entropy")
    assert not paper.count_weight
    assert not paper.averaging
    assert by_name["none"].plan.enhancement == "none"
    assert by_name["mse"].plan.loss == "mse"
    assert by_name["extended"].plan == replace(shipped_plan(300), filters=FILTERS)
    assert "published" not in by_name
    (shorter,) = (arm for arm in arms(100, 3) if arm.name == "published")
    assert shorter.plan == paper
    assert {by_name[name].seeds for name in ("stationary", "none", "block-group", "forest")} == {3}
