"""Five-fold cross-validation by subject, repeated with different folds and initial weights.

Each fold of each repetition of each configuration is a job with its own result file, so that an
interrupted run resumes and several processes share the work.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from training.cohorts.examples import rating_of
from training.rating.recipe import RatingData, RatingPlan, RatingTrainer, predict
from training.reproduction.rating.forest import (
    features_at_places,
    features_over_all_places,
    forest_probabilities,
)
from training.reproduction.rating.subjects import load_subjects
from training.reproduction.work_folder import result_file, run_in_processes
from training.storage import write_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.cohorts.examples import Example
    from training.reproduction.rating.configurations import Configuration

FOLDS: Final = 5
IMAGES: Final = 6
"""Images per subject."""


class Job(NamedTuple):
    """One fold of one repetition of one configuration."""

    configuration: Configuration
    repetition: int
    fold: int

    def file(self, work: Path) -> Path:
        """Return the job's result file."""
        name = f"{self.configuration.name}-{self.repetition}-{self.fold}"
        return result_file(work, name)

    def is_done(self, work: Path) -> bool:
        """Whether there is a result that was trained with this plan."""
        if not self.file(work).exists():
            return False
        with np.load(self.file(work)) as stored:
            plan = json.loads(str(stored["plan"]))
        # Fields that were added to the plan later have defaults that stand for their absence.
        return _as_stored(RatingPlan()) | plan == _as_stored(self.configuration.plan)


def _as_stored(plan: RatingPlan) -> dict[str, Any]:
    """Convert a plan to what JSON returns for it, with lists instead of tuples."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    return fields


def assign_folds(ratings: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Assign each subject to a fold; all folds have similar shares of the subjects' ratings.

    Parameters
    ----------
    ratings : ndarray, shape (subjects, 6)
    seed : int
    """
    highest = ratings.max(axis=1)
    of_subject = np.empty(len(ratings), dtype=np.int64)
    split = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(highest, highest)
    for number, (_, test) in enumerate(split):
        of_subject[test] = number
    return of_subject


def run_jobs(
    work: Path, cohort: Path, chosen: Sequence[Configuration], *, processes: int
) -> Iterator[str]:
    """Run all jobs that have no result yet.

    Parameters
    ----------
    work : Path
        Work folder.
    cohort : Path
        Folder of the cohort.
    chosen : sequence of Configuration
    processes : int

    Yields
    ------
    str
        One line per job.
    """
    missing = [
        job
        for repetition in range(max(each.repetitions for each in chosen))
        for fold in range(FOLDS)
        for each in chosen
        if repetition < each.repetitions and not (job := Job(each, repetition, fold)).is_done(work)
    ]
    yield from run_in_processes(partial(_run, work, cohort), missing, processes=processes)


def _run(work: Path, cohort: Path, job: Job) -> str:
    torch.set_num_threads(1)
    started, plan = time.perf_counter(), job.configuration.plan
    subjects = _subjects(cohort)
    ratings = rating_of(np.stack([e.counts for e in subjects]))
    test = assign_folds(ratings, job.repetition) == job.fold
    if job.configuration.forest:
        features = _forest_features(cohort, plan.enhancement, job.configuration.forest)
        probabilities = forest_probabilities(
            features, ratings.ravel(), np.repeat(~test, IMAGES), job.repetition
        )
    else:
        chosen = [e for e, held_out in zip(subjects, test, strict=True) if not held_out]
        data = _data(cohort, plan.enhancement)
        training = (
            RatingData.for_training(chosen, plan)
            if plan.degraded_copies
            else data.of_subjects(~test)
        )
        probabilities = _train(job, training, data)
    write_arrays(
        job.file(work),
        probabilities=probabilities.reshape(-1, IMAGES, 5),
        test=test,
        counts=np.stack([e.counts for e in subjects]),
        plan=json.dumps(asdict(plan)),
        seconds=time.perf_counter() - started,
    )
    correct = probabilities.argmax(axis=1).reshape(-1, IMAGES)[test] == ratings[test]
    return f"{job.file(work).stem}: accuracy {correct.mean():.3f}"


def _train(job: Job, training: RatingData, everything: RatingData) -> NDArray[np.float32]:
    """Train and predict all images with the weights of the last epoch.

    The epoch is not chosen, because that would use the subjects of the held-out fold.
    """
    plan = job.configuration.plan
    trainer = RatingTrainer(plan, seed=1000 * job.repetition + job.fold)
    for epoch in range(plan.epochs):
        trainer.epoch(epoch, training)
    return predict(trainer.trained, everything.crops)


@lru_cache(maxsize=1)
def _subjects(cohort: Path) -> tuple[Example, ...]:
    return tuple(load_subjects(cohort))


@lru_cache(maxsize=3)
def _data(cohort: Path, enhancement: str) -> RatingData:
    return RatingData.of(_subjects(cohort), enhancement)


@lru_cache(maxsize=2)
def _forest_features(cohort: Path, enhancement: str, kind: str) -> NDArray[np.float32]:
    images = _data(cohort, enhancement).crops[:, 0].numpy()
    return features_at_places(images) if kind == "places" else features_over_all_places(images)
