"""Results of the cross-validation: accuracy per fold, and scores of the held-out predictions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.cohorts.examples import rating_of
from training.rating.scores import majority_of, score_ratings
from training.reproduction.rating.cross_validation import FOLDS, Job
from training.reproduction.work_folder import missing_result
from training.statistics import Difference, Metrics, corrected_paired_test

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from training.reproduction.rating.configurations import Configuration
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
"""Levels of accuracy: each converts the ratings of the images, (subjects, 6), for comparison."""


@dataclass(frozen=True)
class ConfigurationResults:
    """Results of one configuration over all its repetitions.

    Attributes
    ----------
    configuration : Configuration
    train, test : dict of ndarray, shape (repetitions · folds,)
        Accuracy by measure, ordered by repetition, then fold.
    scores : list of dict
        One per repetition, for the held-out predictions of all subjects.
    counts : ndarray, shape (subjects, 6)
    held_out : ndarray, shape (repetitions, subjects, 6, 5)
        Probabilities for each subject, predicted by the network that was not trained on it.
    seconds : float
        Median duration of one training.
    """

    configuration: Configuration
    train: dict[str, FloatArray]
    test: dict[str, FloatArray]
    scores: list[Metrics]
    counts: Ratings
    held_out: Float32Array
    seconds: float


def load_results(work: Path, configuration: Configuration) -> ConfigurationResults:
    """Read the results of one configuration.

    Raises
    ------
    ConfigurationError
        The result of a job is missing.
    """
    train: dict[str, list[float]] = {name: [] for name in MEASURES}
    test: dict[str, list[float]] = {name: [] for name in MEASURES}
    held_out, scores, seconds = [], [], []
    for repetition in range(configuration.repetitions):
        predictions: Float32Array | None = None
        for fold in range(FOLDS):
            job = Job(configuration, repetition, fold)
            if not job.is_done(work):
                raise missing_result(job.file(work))
            with np.load(job.file(work)) as stored:
                probabilities, chosen = stored["probabilities"], stored["test"]
                counts = stored["counts"]
                seconds.append(float(stored["seconds"]))
            predicted, expected = probabilities.argmax(axis=2), rating_of(counts)
            for name, measure in MEASURES.items():
                for part, into in ((chosen, test), (~chosen, train)):
                    correct = measure(predicted[part]) == measure(expected[part])
                    into[name].append(float(correct.mean()))
            if predictions is None:
                predictions = np.zeros_like(probabilities)
            predictions[chosen] = probabilities[chosen]
        assert predictions is not None  # noqa: S101 - narrows the type
        held_out.append(predictions)
        scores.append(score_ratings(predictions, counts))
    return ConfigurationResults(
        configuration,
        {name: np.array(values) for name, values in train.items()},
        {name: np.array(values) for name, values in test.items()},
        scores,
        counts,
        np.stack(held_out),
        float(np.median(seconds)),
    )


def compare(one: ConfigurationResults, other: ConfigurationResults, measure: str) -> Difference:
    """Test the difference of two configurations on the folds that both have."""
    both = min(len(one.test[measure]), len(other.test[measure]))
    differences = one.test[measure][:both] - other.test[measure][:both]
    return corrected_paired_test(differences, 1 / (FOLDS - 1))


def errors_by_count(
    results: ConfigurationResults, edges: Sequence[int]
) -> list[tuple[str, int, float, float]]:
    """Frequency of ratings that are too low and too high, by true count.

    Returns
    -------
    list of tuple
        (range of counts, images, share too low, share too high); an edge belongs to the range that
        it starts.
    """
    counts = results.counts.ravel()
    rows = []
    for low, after in pairwise(edges):
        chosen = (counts >= low) & (counts < after)
        if not chosen.any():
            continue
        predicted = results.held_out.argmax(axis=3).reshape(len(results.held_out), -1)[:, chosen]
        expected = rating_of(counts[chosen])
        name = str(low) if after == low + 1 else f"{low}–{after - 1}"
        rows.append(
            (
                name,
                int(chosen.sum()),
                float(np.mean(predicted < expected)),
                float(np.mean(predicted > expected)),
            )
        )
    return rows
