"""Folds: by subject, with like shares of every rating, the same for every arm."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from training.rating.network import FILTERS
from training.rating.recipe import shipped_plan
from training.reproduction.rating.cross_validation import FOLDS, Job, arms, folds


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


def test_a_job_is_done_when_it_was_trained_by_the_same_plan(tmp_path: Path) -> None:
    job = Job(arms(300, 3)[0], 0, 0)
    job.file(tmp_path).parent.mkdir()

    def store(**changes: object) -> None:
        plan = asdict(job.arm.plan) | changes
        del plan["filters"]  # as if it had been stored before the field existed
        np.savez(job.file(tmp_path), plan=json.dumps(plan))

    assert not job.is_done(tmp_path)
    store()
    assert job.is_done(tmp_path)
    store(epochs=299)
    assert not job.is_done(tmp_path)
