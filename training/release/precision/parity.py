"""Parity: how far the predictions of one form of a network may deviate from those of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from worker.grading.records import Float32Array

TOLERANCE: Final[dict[str, dict[str, Any]]] = {
    "rating": {"argmax": "equal", "probability": 0.02},
    "severity": {"probability": 0.02, "saliency_correlation": 0.99},
}
"""Of each model, as in the golden self-test of the workers (`worker.grading.inference.golden`)."""
_PROBABILITY: Final = 0.02
_CORRELATION: Final = 0.99
FLAT: Final = 0.005
"""Part of the strongest saliency, as in the golden self-test: weaker maps have no pattern."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """Differences between two predictions for the same input, or the largest over several.

    Attributes
    ----------
    probability : float
        Largest absolute difference of a probability; infinite if one is not finite.
    ratings_changed : int
        Images whose most probable rating differs.
    correlation : float
        Smallest Pearson correlation of two saliency maps; 1 if there are none.
    """

    probability: float = 0.0
    ratings_changed: int = 0
    correlation: float = 1.0

    def __or__(self, other: Deviation) -> Deviation:
        return Deviation(
            max(self.probability, other.probability),
            self.ratings_changed + other.ratings_changed,
            min(self.correlation, other.correlation),
        )

    def within(self, share: float = 1.0) -> bool:
        """Whether the deviation uses at most this share of the tolerance."""
        return (
            not self.ratings_changed
            and self.probability <= share * _PROBABILITY
            and 1 - self.correlation <= share * (1 - _CORRELATION)
        )


def flat_limit(predictions: Iterable[Mapping[str, Float32Array]]) -> float:
    """Variation up to which a saliency map is flat, from the predictions for all inputs."""
    maps = [each["saliency"] for each in predictions if "saliency" in each]
    return FLAT * max((float(each.max()) for each in maps), default=0.0)


def compare(
    expected: Mapping[str, Float32Array], found: Mapping[str, Float32Array], *, flat: float = 0.0
) -> Deviation:
    """Compare the outputs of a rating or severity network for one batch, by their names.

    Parameters
    ----------
    expected, found : mapping
    flat : float
        An expected saliency map that varies by no more has no pattern to correlate with: as a
        correlation it counts 1 if no value differs by more, otherwise 0.
    """
    deviation = Deviation()
    for name, golden in expected.items():
        output = found[name]
        if name == "saliency":
            for one, other in zip(golden, output, strict=True):
                deviation |= Deviation(correlation=_correlation(one, other, flat))
            continue
        difference = float(np.abs(output - golden).max())
        changed = 0
        if name == "probabilities":
            changed = int((output.argmax(axis=1) != golden.argmax(axis=1)).sum())
        deviation |= Deviation(difference if np.isfinite(output).all() else np.inf, changed)
    return deviation


def _correlation(expected: Float32Array, found: Float32Array, flat: float) -> float:
    if not np.isfinite(found).all():
        return 0.0
    if np.ptp(expected) <= flat:
        return float(np.abs(found - expected).max() <= flat)
    if np.ptp(found) == 0:
        return 0.0
    return float(np.corrcoef(expected.ravel(), found.ravel())[0, 1])
