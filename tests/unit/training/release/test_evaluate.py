"""Evaluation: contradictions between the models, and scores of the severity model."""

from typing import Any

import numpy as np

from training.cohorts.examples import Example
from training.release.evaluate import SeverityPredictions, joint_metrics, severity_metrics

EMPTY: Any = np.empty(0)


def _example(counts: list[int], most: int) -> Example:
    return Example(EMPTY, np.array(counts), EMPTY, most)


def test_contradictions_between_the_models_are_counted() -> None:
    examples = [
        _example([0] * 6, 0),
        _example([12] * 6, 14),
        _example([9] * 6, 10),  # contradictory labels: rating 1, but at least ten EPVS
        _example([30] * 6, 35),
    ]
    ratings = np.zeros((4, 6, 5), np.float32)
    for subject, rating in enumerate([0, 2, 1, 1]):
        ratings[subject, :, rating] = 1
    found = joint_metrics(ratings, np.array([0.1, 0.9, 0.8, 0.9]), examples)
    assert found == {
        "subjects": 4,
        "flagged": 0.5,
        "labels_differ": 0.25,
        "flagged_where_labels_agree": 0.3333,
    }


def test_severity_scores() -> None:
    examples = [_example([c] * 6, c) for c in (0, 3, 9, 10, 20, 60)]
    probability = np.array([0.1, 0.2, 0.7, 0.4, 0.8, 0.9])
    found = severity_metrics(SeverityPredictions(probability, EMPTY), examples)
    assert found["confusion"] == [[2, 1], [1, 2]]
    assert found["auc"] == 0.8889
    assert (found["sensitivity"], found["specificity"]) == (0.6667, 0.6667)
    assert found["borderline_subjects"] == 2
