"""Scores of ratings: right or wrong, how far off, how sure, and under which circumstances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import confusion_matrix

from training.cohorts.examples import rating_of
from training.statistics import icc, reliability
from worker.grading.stages.grade import probability_of_highest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.cohorts.examples import Example
    from training.statistics import Reliability
    from worker.grading.records import Float32Array

BOUNDARIES: Final = (0.5, 10.5, 20.5, 40.5)
"""Between the counts of two ratings (rating paper, Table 2)."""
NEAR: Final = 2.0
"""Counts this near to a boundary are within two of the other rating: 0–2, 9–12, 19–22, 39–42."""

Metrics = dict[str, Any]


def score_ratings(probabilities: Float32Array, counts: NDArray[np.int64]) -> Metrics:
    """Image and subject figures (rating paper, section 2.5).

    The subject's rating is the highest of its six images; the majority vote is given beside it.

    Parameters
    ----------
    probabilities : ndarray, shape (subjects, 6, 5)
    counts : ndarray, shape (subjects, 6)
    """
    predicted, truth = probabilities.argmax(axis=2), rating_of(counts)
    highest, true_highest = predicted.max(axis=1), truth.max(axis=1)
    majority, true_majority = majority_of(predicted), majority_of(truth)
    wrong = predicted != truth
    image = reliability(probabilities.max(axis=2).ravel(), ~wrong.ravel())
    sure = [probability_of_highest(p, int(r)) for p, r in zip(probabilities, highest, strict=True)]
    subject = reliability(sure, highest == true_highest)
    return {
        "subjects": len(counts),
        "images": int(truth.size),
        "image_accuracy": rounded(np.mean(~wrong)),
        "image_within_one": rounded(np.mean(np.abs(predicted - truth) <= 1)),
        "image_spearman": rounded(spearmanr(predicted.ravel(), truth.ravel()).statistic),
        "image_icc": [rounded(v) for v in icc(np.stack([predicted.ravel(), truth.ravel()], 1))],
        "image_most_frequent_rating": rounded(np.bincount(truth.ravel()).max() / truth.size),
        "image_calibration": _curve(image),
        "subject_accuracy": rounded(np.mean(highest == true_highest)),
        "subject_within_one": rounded(np.mean(np.abs(highest - true_highest) <= 1)),
        "subject_spearman": rounded(spearmanr(highest, true_highest).statistic),
        "subject_icc": [rounded(v) for v in icc(np.stack([highest, true_highest], 1))],
        "subject_majority_accuracy": rounded(np.mean(majority == true_majority)),
        "subject_calibration": _curve(subject),
        "image_confusion": confusion_matrix(
            truth.ravel(), predicted.ravel(), labels=range(5)
        ).tolist(),
        "subject_confusion": confusion_matrix(true_highest, highest, labels=range(5)).tolist(),
        "near_boundary": near_boundary(predicted, counts),
    }


def near_boundary(predicted: NDArray[np.int64], counts: NDArray[np.int64]) -> Metrics:
    """How often counts near a boundary between ratings are rated wrongly, and which way.

    The rating paper observes (section 3) that they tend to be rated too low.
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
    """Most frequent rating of each row; the higher one of two that are equally frequent."""
    frequency = np.stack([(ratings == rating).sum(axis=1) for rating in range(5)], axis=1)
    return np.asarray(4 - frequency[:, ::-1].argmax(axis=1))


def _curve(found: Reliability) -> Metrics:
    rows = zip(found.confidence, found.accuracy, found.answers, strict=True)
    return {
        "expected_calibration_error": rounded(found.error),
        "confidence_accuracy_answers": [[rounded(c), rounded(a), int(n)] for c, a, n in rows],
    }


def by_circumstance(
    probabilities: Float32Array, counts: NDArray[np.int64], examples: Sequence[Example]
) -> Metrics:
    """Image accuracy of groups of scans, and the registration's errors.

    Empty for a site's own scans, of which nobody knows how they came to be.

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


def rounded(value: Any) -> float:
    """Four decimals, as a plain number."""
    return round(float(value), 4)
