"""Five-fold cross-validation by subject, repeated over seeds, for every way of training compared.

Each fold of each repetition of each arm is a job that leaves one file, so that an interrupted run
goes on where it stopped and several processes share the work.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from training.cohorts.examples import rating_of
from training.rating.network import FILTERS
from training.rating.recipe import RatingData, RatingPlan, RatingTrainer, predict, shipped_plan
from training.reproduction.jobs import share_out
from training.reproduction.rating.forest import (
    features_at_places,
    features_over_all_places,
    forest_probabilities,
)
from training.reproduction.rating.subjects import subjects_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

FOLDS: Final = 5
PUBLISHED_EPOCHS: Final = 300
IMAGES: Final = 6
"""Of a subject."""


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes
    ----------
    name : str
        Names the jobs' files.
    title : str
        For the report.
    plan : RatingPlan
        A forest takes its enhancement alone.
    seeds : int
        Repetitions, with other folds and other initial weights.
    forest : {"", "places", "all-places"}
        Features of the random forest, where it is one.
    """

    name: str
    title: str
    plan: RatingPlan
    seeds: int = 1
    forest: str = ""


class Job(NamedTuple):
    """One fold of one repetition of one arm."""

    arm: Arm
    seed: int
    fold: int

    def file(self, work: Path) -> Path:
        """Where its answers lie."""
        return work / "jobs" / f"{self.arm.name}-{self.seed}-{self.fold}.npz"

    def is_done(self, work: Path) -> bool:
        """Whether the answers are there, and of this plan."""
        if not self.file(work).exists():
            return False
        with np.load(self.file(work)) as stored:
            plan = json.loads(str(stored["plan"]))
        # A plan of before a field existed has its default, which is to be as if there were none.
        return _as_stored(RatingPlan()) | plan == _as_stored(self.arm.plan)


def _as_stored(plan: RatingPlan) -> dict[str, Any]:
    """Plan as JSON gives it back: with lists for tuples."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    return fields


def arms(epochs: int, seeds: int) -> tuple[Arm, ...]:
    """List what is compared: the paper's losses, both Haar transforms and none, ours, forests."""
    paper = RatingPlan(epochs=epochs)
    longer = Arm("published", "the same, 300 epochs", replace(paper, epochs=PUBLISHED_EPOCHS))
    return (
        Arm("stationary", "stationary Haar, cross-entropy", paper, seeds),
        Arm("none", "no Haar, cross-entropy", replace(paper, enhancement="none"), seeds),
        Arm(
            "block-group",
            "block-group Haar, cross-entropy",
            replace(paper, enhancement="block-group"),
            seeds,
        ),
        Arm("mse", "stationary Haar, mean squared error", replace(paper, loss="mse")),
        Arm(
            "extended",
            "recipe of the shipped weights, same network",
            replace(shipped_plan(epochs), filters=FILTERS),
        ),
        *([longer] if epochs < PUBLISHED_EPOCHS else []),
        Arm("forest", "random forest, Haar-like features at places", paper, seeds, "places"),
        Arm(
            "forest-all",
            "random forest, Haar-like features over all places",
            paper,
            seeds,
            "all-places",
        ),
    )


def folds(ratings: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Fold of every subject; the folds have the subjects' ratings in like shares.

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


def run_jobs(work: Path, cohort: Path, chosen: Sequence[Arm], *, processes: int) -> Iterator[str]:
    """Run every job that has not been run yet.

    Parameters
    ----------
    work : Path
        Receives ``jobs/``.
    cohort : Path
        As `subjects_of` takes it.
    chosen : sequence of Arm
    processes : int

    Yields
    ------
    str
        One line a job.
    """
    (work / "jobs").mkdir(parents=True, exist_ok=True)
    missing = [
        job
        for seed in range(max(arm.seeds for arm in chosen))
        for fold in range(FOLDS)
        for arm in chosen
        if seed < arm.seeds and not (job := Job(arm, seed, fold)).is_done(work)
    ]
    yield from share_out(partial(_run, work, cohort), missing, processes=processes)


def _run(work: Path, cohort: Path, job: Job) -> str:
    torch.set_num_threads(1)
    started = time.perf_counter()
    subjects = _subjects(cohort)
    ratings = rating_of(np.stack([e.counts for e in subjects]))
    test = folds(ratings, job.seed) == job.fold
    if job.arm.forest:
        features = _forest_features(cohort, job.arm.plan.enhancement, job.arm.forest)
        probabilities = forest_probabilities(
            features, ratings.ravel(), np.repeat(~test, IMAGES), job.seed
        )
    else:
        chosen = [e for e, held_out in zip(subjects, test, strict=True) if not held_out]
        plan = job.arm.plan
        data = _data(cohort, plan.enhancement)
        training = (
            RatingData.for_training(chosen, plan) if plan.worse_copies else data.of_subjects(~test)
        )
        probabilities = _train(job, training, data)
    unfinished = job.file(work).with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez_compressed(
            file,
            probabilities=probabilities.reshape(-1, IMAGES, 5),
            test=test,
            counts=np.stack([e.counts for e in subjects]),
            plan=json.dumps(asdict(job.arm.plan)),
            seconds=time.perf_counter() - started,
        )
    unfinished.rename(job.file(work))
    correct = probabilities.argmax(axis=1).reshape(-1, IMAGES)[test] == ratings[test]
    return f"{job.arm.name}, seed {job.seed}, fold {job.fold}: {correct.mean():.3f}"


def _train(job: Job, training: RatingData, everything: RatingData) -> NDArray[np.float32]:
    """Answers of the last epoch's weights: no subject of the fold has a say in when to stop."""
    trainer = RatingTrainer(job.arm.plan, seed=1000 * job.seed + job.fold)
    for epoch in range(job.arm.plan.epochs):
        trainer.epoch(epoch, training)
    return predict(trainer.trained, everything.crops)


@lru_cache(maxsize=1)
def _subjects(cohort: Path) -> tuple:  # type: ignore[type-arg]
    return tuple(subjects_of(cohort))


@lru_cache(maxsize=3)
def _data(cohort: Path, enhancement: str) -> RatingData:
    return RatingData.of(_subjects(cohort), enhancement)


@lru_cache(maxsize=2)
def _forest_features(cohort: Path, enhancement: str, kind: str) -> NDArray[np.float32]:
    images = _data(cohort, enhancement).crops[:, 0].numpy()
    return features_at_places(images) if kind == "places" else features_over_all_places(images)
