"""Answers of the cross-validation: figures of each fold, and of everything held out once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigurationError
from training.cohorts.examples import rating_of
from training.rating.scores import Metrics, majority_of, score_ratings
from training.reproduction.rating.cross_validation import FOLDS, Arm, Job
from training.statistics import Difference, corrected_paired_test

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from worker.grading.records import Float32Array

FloatArray = NDArray[np.float64]
Ratings = NDArray[np.int64]


def _highest(ratings: Ratings) -> Ratings:
    return np.asarray(ratings.max(axis=1))


MEASURES: dict[str, Callable[[Ratings], Ratings]] = {
    "image": np.ravel,
    "subject-majority": majority_of,
    "subject-highest": _highest,
}
"""What is right or wrong: ratings of the images, shape (subjects, 6), to what is compared."""


@dataclass(frozen=True)
class ArmResults:
    """One arm over all its repetitions.

    Attributes
    ----------
    arm : Arm
    train, test : dict of ndarray, shape (repetitions · folds,)
        Accuracy by measure, in the order of repetitions, then folds.
    scores : list of dict
        One a repetition: every subject answered by the network that had not seen it.
    counts : ndarray, shape (subjects, 6)
    held_out : ndarray, shape (repetitions, subjects, 6, 5)
        Those answers.
    seconds : float
        Median time of one training.
    """

    arm: Arm
    train: dict[str, FloatArray]
    test: dict[str, FloatArray]
    scores: list[Metrics]
    counts: Ratings
    held_out: Float32Array
    seconds: float

    def mean(self, score: str) -> float:
        """Mean of a score over the repetitions."""
        return float(np.mean([scores[score] for scores in self.scores]))


def gather(work: Path, arm: Arm) -> ArmResults:
    """Read the answers of one arm.

    Raises
    ------
    ConfigurationError
        Jobs are missing.
    """
    train: dict[str, list[float]] = {name: [] for name in MEASURES}
    test: dict[str, list[float]] = {name: [] for name in MEASURES}
    held_out, scores, seconds = [], [], []
    for seed in range(arm.seeds):
        answers: Float32Array | None = None
        for fold in range(FOLDS):
            job = Job(arm, seed, fold)
            if not job.is_done(work):
                raise ConfigurationError(
                    f"{job.file(work).name} is missing or of another plan.",
                    "Run the reproduction to its end; it resumes.",
                )
            with np.load(job.file(work)) as stored:
                probabilities, chosen = stored["probabilities"], stored["test"]
                counts = stored["counts"]
                seconds.append(float(stored["seconds"]))
            predicted, truth = probabilities.argmax(axis=2), rating_of(counts)
            for name, measure in MEASURES.items():
                for part, into in ((chosen, test), (~chosen, train)):
                    right = measure(predicted[part]) == measure(truth[part])
                    into[name].append(float(right.mean()))
            answers = np.zeros_like(probabilities) if answers is None else answers
            answers[chosen] = probabilities[chosen]
        assert answers is not None  # noqa: S101 - narrows the type
        held_out.append(answers)
        scores.append(score_ratings(answers, counts))
    return ArmResults(
        arm,
        {name: np.array(values) for name, values in train.items()},
        {name: np.array(values) for name, values in test.items()},
        scores,
        counts,
        np.stack(held_out),
        float(np.median(seconds)),
    )


def compare(one: ArmResults, other: ArmResults, measure: str) -> Difference:
    """Test the difference of two arms on the folds that both were trained on."""
    both = min(len(one.test[measure]), len(other.test[measure]))
    differences = one.test[measure][:both] - other.test[measure][:both]
    return corrected_paired_test(differences, 1 / (FOLDS - 1))


def errors_by_count(
    results: ArmResults, edges: Sequence[int]
) -> list[tuple[str, int, float, float]]:
    """How often images are rated too low and too high, by true count.

    Returns
    -------
    list of tuple
        (range of counts, images, share too low, share too high); the range ends before the next
        edge.
    """
    counts = results.counts.ravel()
    rows = []
    for low, after in pairwise(edges):
        chosen = (counts >= low) & (counts < after)
        if not chosen.any():
            continue
        predicted = results.held_out.argmax(axis=3).reshape(len(results.held_out), -1)[:, chosen]
        truth = rating_of(counts[chosen])
        name = str(low) if after == low + 1 else f"{low}–{after - 1}"
        rows.append(
            (
                name,
                int(chosen.sum()),
                float(np.mean(predicted < truth)),
                float(np.mean(predicted > truth)),
            )
        )
    return rows
