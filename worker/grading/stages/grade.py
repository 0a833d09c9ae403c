"""Grade: `RatingOutput` + `SeverityOutput` → `Grade`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from core.results import Grade, ImageRating, Severity

if TYPE_CHECKING:
    from worker.grading.records import Float32Array, RatingInput, RatingOutput, SeverityOutput

MODERATE_RATING: Final = 2
"""Lowest rating (11–20 EPVS) that agrees with the severity paper's class "at least ten"."""


def grade(
    rating_input: RatingInput, rating_output: RatingOutput, severity_output: SeverityOutput
) -> Grade:
    """Combine the predictions of both models.

    The subject's rating is the highest of the six images (rating paper, section 2.5); the most
    frequent one is reported as well. The models agree if a rating of two or more coincides with
    moderate-to-severe, or a lower one with none-to-mild. A count of exactly ten is an exception: it
    is rating 1 and moderate-to-severe.

    Parameters
    ----------
    rating_input : RatingInput
    rating_output : RatingOutput
        Row i is the prediction for crop i of `rating_input`.
    severity_output : SeverityOutput
    """
    best = rating_output.probabilities.argmax(axis=1)
    images = tuple(
        ImageRating(crop, int(rating), float(row[rating]))
        for crop, rating, row in zip(
            rating_input.placements, best, rating_output.probabilities, strict=True
        )
    )
    rating = max(image.rating for image in images)
    frequency = Counter(image.rating for image in images)
    severity = (
        Severity.MODERATE_TO_SEVERE if severity_output.probability >= 0.5 else Severity.NONE_TO_MILD
    )
    return Grade(
        images=images,
        rating=rating,
        majority_rating=max(frequency, key=lambda value: (frequency[value], value)),
        confidence=probability_of_highest(rating_output.probabilities, rating),
        severity=severity,
        severity_probability=severity_output.probability,
        models_agree=(rating >= MODERATE_RATING) == (severity is Severity.MODERATE_TO_SEVERE),
        rating_model=rating_output.model,
        severity_model=severity_output.model,
    )


def probability_of_highest(probabilities: Float32Array, rating: int) -> float:
    """Probability that the highest rating of all images is `rating`.

    A certain prediction for one image does not make the subject's rating certain: none of the other
    images may be higher. The errors of the images are assumed to be independent of each other;
    ``docs/results/weights.md`` reports how well that holds.

    Parameters
    ----------
    probabilities : ndarray, shape (images, 5)
    rating : int
    """
    at_most = probabilities.cumsum(axis=1, dtype=float).prod(axis=0)
    return float(min(at_most[rating], 1.0) - (at_most[rating - 1] if rating else 0.0))
