"""Checks of predictions before they become a grade: ranges, sums and finite values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from core.errors import Failed

if TYPE_CHECKING:
    from worker.grading.records import Float32Array

_SUM_TOLERANCE: Final = 5e-3
"""For the sum of five FP16 probabilities; each is rounded to 2⁻¹¹, like the softmax before."""


def check_distribution(probabilities: Float32Array, model: str) -> Float32Array:
    """Return `probabilities`, shape (n, classes), if each row is a probability distribution.

    Raises
    ------
    Failed
        ``model-answer-invalid``.
    """
    if not np.isfinite(probabilities).all():
        raise invalid_prediction(model, "a probability is not finite")
    if probabilities.min() < 0 or probabilities.max() > 1 + _SUM_TOLERANCE:
        raise invalid_prediction(
            model, f"probabilities from {probabilities.min():.3f} to {probabilities.max():.3f}"
        )
    sums = probabilities.sum(axis=1)
    if np.abs(sums - 1).max() > _SUM_TOLERANCE:
        raise invalid_prediction(
            model, f"probabilities that sum to {sums.min():.3f}–{sums.max():.3f}"
        )
    return probabilities


def check_severity(probability: Float32Array, saliency: Float32Array) -> None:
    """Check that the probability lies in 0–1 and the saliency is finite and not negative.

    Raises
    ------
    Failed
        ``model-answer-invalid``.
    """
    if not (np.isfinite(probability).all() and 0 <= probability.min() <= probability.max() <= 1):
        raise invalid_prediction("severity", "the probability is not between 0 and 1")
    if not np.isfinite(saliency).all() or saliency.min() < 0:
        raise invalid_prediction("severity", "the saliency is negative or not finite")


def invalid_prediction(model: str, problem: str) -> Failed:
    """Build the exception for a prediction that cannot be used."""
    return Failed(
        "model-answer-invalid",
        f"The prediction of the model {model} cannot be used: {problem}.",
        "Run the golden self-test (`epvs-node doctor`).",
    )
