"""Parity of predictions: each criterion alone makes a deviation too large."""

from __future__ import annotations

import numpy as np
import pytest

from training.release.precision.parity import FLAT, TOLERANCE, Deviation, compare, flat_limit
from worker.grading.inference import golden


def _ratings(*rows: list[float]) -> dict[str, np.ndarray]:
    return {"probabilities": np.array(rows, np.float32)}


def test_tolerances_are_those_of_the_workers() -> None:
    for tolerance in TOLERANCE.values():
        assert tolerance["probability"] == golden.PROBABILITY_TOLERANCE
    assert TOLERANCE["severity"]["saliency_correlation"] == golden.SALIENCY_CORRELATION
    assert Deviation(golden.PROBABILITY_TOLERANCE, 0, golden.SALIENCY_CORRELATION).within()
    assert not Deviation(1.01 * golden.PROBABILITY_TOLERANCE).within()
    assert FLAT == golden.FLAT_SALIENCY
    assert not Deviation(correlation=golden.SALIENCY_CORRELATION - 1e-4).within()


def test_ratings_are_compared_by_probability_and_by_rating() -> None:
    expected = _ratings([0.6, 0.4], [0.505, 0.495])
    assert compare(expected, expected) == Deviation()
    found = compare(expected, _ratings([0.61, 0.39], [0.495, 0.505]))
    assert found.probability == pytest.approx(0.01, rel=1e-5)
    assert found.ratings_changed == 1
    assert not found.within()
    assert not compare(expected, _ratings([np.nan, 0.4], [0.505, 0.495])).within()


def test_every_saliency_map_of_a_batch_counts() -> None:
    maps = np.random.default_rng(0).random((2, 1, 4, 4), np.float32)
    expected = {"probability": np.array([[0.2], [0.3]], np.float32), "saliency": maps}
    assert compare(expected, expected | {"saliency": 2 * maps}).within()
    rolled = np.stack([maps[0], np.roll(maps[1], 1)])
    assert not compare(expected, expected | {"saliency": rolled}).within()
    for value in (0, np.nan, np.inf):
        assert not compare(expected, expected | {"saliency": np.full_like(maps, value)}).within()


def test_a_flat_map_is_compared_by_its_values() -> None:
    strong = np.random.default_rng(0).random((1, 1, 4, 4), np.float32)
    flat = flat_limit([{"saliency": strong}, {"saliency": 0 * strong}])
    assert flat == pytest.approx(FLAT * strong.max())
    assert flat_limit([{"probabilities": strong}]) == 0
    expected = {"saliency": 0.004 * strong}
    rolled = {"saliency": 0.004 * np.roll(strong, 1)}
    assert not compare(expected, rolled).within()
    assert compare(expected, rolled, flat=flat) == Deviation()
    assert not compare(expected, {"saliency": strong}, flat=flat).within()
    assert compare({"saliency": 0 * strong}, {"saliency": 0 * strong}) == Deviation()


def test_a_share_of_the_tolerance_applies_to_every_criterion() -> None:
    assert Deviation(0.005, 0, 0.9975).within(0.25)
    assert not Deviation(0.006).within(0.25)
    assert not Deviation(correlation=0.997).within(0.25)
