"""The rules that turn six ratings and one probability into a grade."""

from __future__ import annotations

import numpy as np
import pytest

from core.results import Crop, Grade, Level, ModelIdentity, Severity, Side
from tests.support.builders.records import INTENDED_USE
from worker.grading.records import RatingInput, RatingOutput, SeverityOutput
from worker.grading.stages.grade import grade, probability_of_highest

RATING_MODEL = ModelIdentity("rating", "1", "a" * 64, "Rating", "synthetic", INTENDED_USE)
SEVERITY_MODEL = ModelIdentity("severity", "1", "b" * 64, "Severity", "synthetic", INTENDED_USE)


def graded(ratings: list[int], severity: float = 0.9, sure: list[float] | None = None) -> Grade:
    sure = sure or [0.8] * 6
    probabilities = np.full((6, 5), 0.0, np.float32)
    for row, rating, probability in zip(probabilities, ratings, sure, strict=True):
        row[:] = (1 - probability) / 4
        row[rating] = probability
    placements = tuple(
        Crop(level, side, 3 + i, f"1.2.{i}", None, ())
        for i, level in enumerate(Level)
        for side in Side
    )
    return grade(
        RatingInput(np.zeros((6, 1, 112, 86), np.float32), placements),
        RatingOutput(probabilities, RATING_MODEL),
        SeverityOutput(severity, np.zeros((1, 16, 16), np.float32), SEVERITY_MODEL),
    )


@pytest.mark.parametrize(
    ("ratings", "highest", "majority"),
    [
        ([0, 0, 0, 0, 0, 0], 0, 0),
        ([1, 1, 1, 1, 1, 3], 3, 1),
        ([1, 1, 1, 2, 2, 2], 2, 2),  # equally frequent: the higher one
        ([4, 0, 0, 2, 2, 3], 4, 2),
    ],
)
def test_the_rating_is_the_highest_and_the_most_frequent_is_reported(
    ratings: list[int], highest: int, majority: int
) -> None:
    result = graded(ratings)
    assert (result.rating, result.majority_rating) == (highest, majority)
    assert [image.rating for image in result.images] == ratings
    assert result.images[3].crop.side is Side.RIGHT
    assert result.images[3].crop.level is Level.MIDDLE


def test_confidence_is_the_probability_that_the_highest_of_six_is_the_rating() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.4, 0.5, 1, 0.5, 0.2], 6).astype(np.float32)
    draws = np.stack(
        [rng.choice(5, 200_000, p=row / row.sum()) for row in probabilities.astype(float)]
    )
    frequency = np.bincount(draws.max(axis=0), minlength=5) / draws.shape[1]
    for rating in range(5):
        expected = pytest.approx(frequency[rating], abs=0.005)
        assert probability_of_highest(probabilities, rating) == expected


def test_one_certain_image_does_not_make_the_rating_certain() -> None:
    result = graded([1, 1, 1, 1, 1, 1], sure=[1.0, 0.6, 0.6, 0.6, 0.6, 0.6])
    assert result.images[0].probability == pytest.approx(1.0)
    assert result.confidence < 0.6


@pytest.mark.parametrize(
    ("rating", "probability", "severity", "agree"),
    [
        (1, 0.49, Severity.NONE_TO_MILD, True),
        (2, 0.50, Severity.MODERATE_TO_SEVERE, True),
        (1, 0.50, Severity.MODERATE_TO_SEVERE, False),
        (2, 0.49, Severity.NONE_TO_MILD, False),
    ],
)
def test_agreement(rating: int, probability: float, severity: Severity, agree: bool) -> None:
    result = graded([rating] * 6, probability)
    assert result.severity is severity
    assert result.models_agree is agree
    assert result.severity_probability == probability
    assert (result.rating_model, result.severity_model) == (RATING_MODEL, SEVERITY_MODEL)
