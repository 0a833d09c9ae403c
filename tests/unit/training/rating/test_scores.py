"""Scores of ratings, on examples that can be computed by hand."""

from typing import Any

import numpy as np
import pytest

from training.cohorts.examples import Example
from training.rating.scores import by_circumstance, majority_of, near_boundary, score_ratings

COUNTS = np.array([[0, 5, 15, 30, 50, 10], [0, 0, 0, 0, 0, 0]])


def _probabilities(ratings: list[list[int]], confidence: float = 0.8) -> np.ndarray:
    probabilities = np.full((len(ratings), 6, 5), (1 - confidence) / 4, np.float32)
    np.put_along_axis(probabilities, np.array(ratings)[..., None], confidence, axis=2)
    return probabilities


def test_image_and_subject_figures() -> None:
    scores = score_ratings(_probabilities([[0, 1, 2, 3, 3, 1], [0, 0, 0, 0, 0, 1]]), COUNTS)
    assert scores["image_accuracy"] == pytest.approx(10 / 12, abs=1e-4)
    assert scores["image_within_one"] == 1.0
    assert scores["subject_accuracy"] == 0.0  # 3 for 4, 1 for 0
    assert scores["subject_majority_accuracy"] == 0.5  # 3 for 1 (two of 3), 0 for 0
    assert scores["image_confusion"][4] == [0, 0, 0, 1, 0]
    # All predictions have a confidence of 0.8, and five sixths of them are correct.
    curve = scores["image_calibration"]
    assert curve["expected_calibration_error"] == pytest.approx(10 / 12 - 0.8, abs=1e-3)


def test_majority_is_the_higher_of_two_equally_frequent_ratings() -> None:
    ratings = np.array([[1, 1, 1, 2, 2, 2], [4, 0, 0, 2, 2, 3], [0] * 6])
    assert majority_of(ratings).tolist() == [2, 2, 0]


def test_errors_near_boundaries_and_their_direction() -> None:
    found = near_boundary(np.array([[0, 1, 2, 3, 3, 2], [0, 0, 0, 0, 0, 1]]), COUNTS)
    assert found["near_images"] == 1 + 6 + 1  # the 0, six 0s, the 10
    assert (found["wrong"], found["wrong_near"], found["wrong_too_low"]) == (3, 2, 1)
    assert found["far_accuracy"] == pytest.approx(3 / 4)


def test_accuracy_by_circumstance_requires_facts() -> None:
    empty: Any = np.empty(0)
    probabilities = _probabilities([[0, 1, 2, 3, 3, 1], [0, 0, 0, 0, 0, 0]])
    plain = [Example(empty, COUNTS[0], empty, 0)] * 2
    assert by_circumstance(probabilities, COUNTS, plain) == {}
    facts = [
        {
            "protocol": protocol,
            "noise": noise,
            "motion_mm": motion,
            "sampled": 0.7,
            "registration_error_mm": error,
        }
        for protocol, noise, motion, error in (("a", 0.04, 0.3, 3.0), ("b", 0.01, 0.0, 1.0))
    ]
    made = [Example(empty, COUNTS[0], empty, 0, facts=f) for f in facts]
    found = by_circumstance(probabilities, COUNTS, made)
    groups = found["accuracy_by_circumstance"]
    assert groups["a"] == {"scans": 1, "image_accuracy": pytest.approx(5 / 6, abs=1e-4)}
    assert groups["head still"]["image_accuracy"] == 1.0
    assert found["registration_error_mm"]["largest"] == 3.0
