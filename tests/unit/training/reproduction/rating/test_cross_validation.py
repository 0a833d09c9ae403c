"""Folds with similar shares of every rating, and results that belong to their plan."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from training.reproduction.rating.configurations import configurations
from training.reproduction.rating.cross_validation import FOLDS, Job, assign_folds


def test_folds_have_similar_shares_of_every_rating() -> None:
    highest = np.repeat([0, 1, 2, 3, 4], [20, 10, 30, 25, 10])
    ratings = np.zeros((len(highest), 6), dtype=np.int64)
    ratings[:, 3] = highest
    of_subject = assign_folds(ratings, seed=1)
    for rating in range(5):
        sizes = np.bincount(of_subject[highest == rating], minlength=FOLDS)
        assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(of_subject, assign_folds(ratings, seed=1))
    assert not np.array_equal(of_subject, assign_folds(ratings, seed=2))


def test_job_is_done_if_its_result_belongs_to_the_same_plan(tmp_path: Path) -> None:
    job = Job(configurations(300, 3)[0], 0, 0)
    job.file(tmp_path).parent.mkdir()

    def store(**changes: object) -> None:
        plan = asdict(job.configuration.plan) | changes
        del plan["filters"]  # as in a result from before the field existed
        np.savez(job.file(tmp_path), plan=json.dumps(plan))

    assert not job.is_done(tmp_path)
    store()
    assert job.is_done(tmp_path)
    store(epochs=299)
    assert not job.is_done(tmp_path)
