"""Scores of severities: the paper's confusion matrix gives the paper's scores."""

import numpy as np
import pytest

from training.severity.scores import auc_interval, score_severities


def test_scores_of_the_papers_test_set() -> None:
    """Severity paper, Results: 39 patients, 12 true and 1 false positive, 3 false negatives."""
    counts = np.repeat([20, 20, 0, 0], [12, 3, 1, 23])
    probability = np.repeat([0.9, 0.2, 0.8, 0.1], [12, 3, 1, 23])
    found = score_severities(probability, counts)
    assert found["accuracy"] == pytest.approx(0.897, abs=5e-4)
    assert found["accuracy_95ci"] == pytest.approx([0.758, 0.971], abs=5e-4)
    assert (found["sensitivity"], found["specificity"]) == pytest.approx((0.80, 0.96), abs=5e-3)
    assert (found["ppv"], found["npv"]) == pytest.approx((0.9231, 0.8846), abs=1e-4)
    assert found["f1"] == pytest.approx(0.86, abs=5e-3)
    assert found["no_information_rate"] == pytest.approx(24 / 39, abs=1e-4)
    assert found["no_information_p"] < 0.001


def test_auc_counts_ties_half_and_lies_in_its_interval() -> None:
    positives = np.array([True] * 20 + [False] * 20)
    score = np.concatenate([np.linspace(0.3, 0.9, 20), np.linspace(0.1, 0.7, 20)])
    found = auc_interval(positives, score)
    assert found.value == pytest.approx(
        score_severities(score, np.where(positives, 20, 0))["auc"], abs=1e-4
    )
    assert found.low < found.value < found.high
    assert auc_interval(positives, np.full(40, 0.5)) == pytest.approx((0.5, 0.5, 0.5))
    assert np.isnan(auc_interval(np.ones(3, bool), score[:3]).value)
