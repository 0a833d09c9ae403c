"""Scores of ratings: accuracy, agreement, calibration, and errors by circumstance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import confusion_matrix

from training.cohorts.examples import rating_of
from training.statistics import Metrics, icc, reliability, rounded
from worker.grading.stages.grade import probability_of_highest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.cohorts.examples import Example
    from training.statistics import Reliability
    from worker.grading.records import Float32Array

BOUNDARIES: Final = (0.5, 10.5, 20.5, 40.5)
"""Boundaries between the counts of neighbouring ratings (rating paper, Table 2)."""
NEAR: Final = 2.0
"""Largest distance of a count that is near a boundary: 0–2, 9–12, 19–22, 39–42."""


def score_ratings(probabilities: Float32Array, counts: NDArray[np.int64]) -> Metrics:
    """Scores for images and subjects (rating paper, section 2.5).

    The rating of a subject is the highest of its six images; scores for the majority vote, which
    the paper uses, are included.

    Parameters
    ----------
    probabilities : ndarray, shape (subjects, 6, 5)
    counts : ndarray, shape (subjects, 6)
    """
    predicted, expected = probabilities.argmax(axis=2), rating_of(counts)
    highest, expected_highest = predicted.max(axis=1), expected.max(axis=1)
    majority, expected_majority = majority_of(predicted), majority_of(expected)
    wrong = predicted != expected
    image = reliability(probabilities.max(axis=2).ravel(), ~wrong.ravel())
    confidence = [
        probability_of_highest(p, int(r)) for p, r in zip(probabilities, highest, strict=True)
    ]
    subject = reliability(confidence, highest == expected_highest)
    return {
        "subjects": len(counts),
        "images": int(expected.size),
        "image_accuracy": rounded(np.mean(~wrong)),
        "image_within_one": rounded(np.mean(np.abs(predicted - expected) <= 1)),
        "image_spearman": rounded(spearmanr(predicted.ravel(), expected.ravel()).statistic),
        "image_icc": [rounded(v) for v in icc(np.stack([predicted.ravel(), expected.ravel()], 1))],
        "image_most_frequent_rating": rounded(np.bincount(expected.ravel()).max() / expected.size),
        "image_calibration": _calibration(image),
        "subject_accuracy": rounded(np.mean(highest == expected_highest)),
        "subject_within_one": rounded(np.mean(np.abs(highest - expected_highest) <= 1)),
        "subject_spearman": rounded(spearmanr(highest, expected_highest).statistic),
        "subject_icc": [rounded(v) for v in icc(np.stack([highest, expected_highest], 1))],
        "subject_majority_accuracy": rounded(np.mean(majority == expected_majority)),
        "subject_calibration": _calibration(subject),
        "image_confusion": confusion_matrix(
            expected.ravel(), predicted.ravel(), labels=range(5)
        ).tolist(),
        "subject_confusion": confusion_matrix(expected_highest, highest, labels=range(5)).tolist(),
        "near_boundary": near_boundary(predicted, counts),
    }


def near_boundary(predicted: NDArray[np.int64], counts: NDArray[np.int64]) -> Metrics:
    """Accuracy near the boundaries between ratings, and the direction of the errors.

    The rating paper (section 3) observes that images near a boundary tend to be rated too low.
    """
    distance = np.abs(counts[..., None] - BOUNDARIES).min(axis=-1)
    near = distance <= NEAR
    wrong, low = predicted != rating_of(counts), predicted < rating_of(counts)
    return {
        "near_images": int(near.sum()),
        "near_accuracy": rounded(np.mean(~wrong[near])) if near.any() else None,
        "far_accuracy": rounded(np.mean(~wrong[~near])) if (~near).any() else None,
        "wrong": int(wrong.sum()),
        "wrong_near": int((wrong & near).sum()),
        "wrong_too_low": int(low.sum()),
    }


def majority_of(ratings: NDArray[np.int64]) -> NDArray[np.int64]:
    """Most frequent rating of each row; of several equally frequent ones, the highest."""
    frequency = np.stack([(ratings == rating).sum(axis=1) for rating in range(5)], axis=1)
    return np.asarray(4 - frequency[:, ::-1].argmax(axis=1))


def _calibration(found: Reliability) -> Metrics:
    rows = zip(found.confidence, found.accuracy, found.predictions, strict=True)
    return {
        "expected_calibration_error": rounded(found.error),
        "confidence_accuracy_count": [[rounded(c), rounded(a), int(n)] for c, a, n in rows],
    }


def by_circumstance(
    probabilities: Float32Array, counts: NDArray[np.int64], examples: Sequence[Example]
) -> Metrics:
    """Image accuracy for groups of synthetic scans, and the errors of their registration.

    Empty for a site's scans, whose imperfections are not known.

    Parameters
    ----------
    probabilities : ndarray, shape (subjects, 6, 5)
    counts : ndarray, shape (subjects, 6)
    examples : sequence of Example
    """
    facts = [example.facts for example in examples]
    if not all(facts):
        return {}
    right = probabilities.argmax(axis=2) == rating_of(counts)
    protocol = np.array([f["protocol"] for f in facts])
    noise, moved, ringing, error = (
        np.array([f[name] for f in facts])
        for name in ("noise", "motion_mm", "sampled", "registration_error_mm")
    )
    groups = {name: protocol == name for name in np.unique(protocol)} | {
        "noise below its median": noise < np.median(noise),
        "noise above its median": noise >= np.median(noise),
        "head still": moved == 0,
        "head moved": moved > 0,
        "more than three quarters of k-space": ringing > 0.75,
        "at most three quarters of k-space": ringing <= 0.75,
        "registered within 2 mm": error <= 2,
        "registered worse than 2 mm": error > 2,
    }
    return {
        "accuracy_by_circumstance": {
            name: {"scans": int(chosen.sum()), "image_accuracy": rounded(right[chosen].mean())}
            for name, chosen in groups.items()
            if chosen.any()
        },
        "registration_error_mm": {
            "median": rounded(np.median(error)),
            "95th percentile": rounded(np.quantile(error, 0.95)),
            "largest": rounded(error.max()),
        },
    }
