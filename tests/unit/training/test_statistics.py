"""Statistics: published examples, and distributions with known results."""

import numpy as np
import pytest
from scipy import stats

from training.statistics import ac2, corrected_paired_test, icc, mean_sd, proportion, reliability


def test_icc_of_the_published_example() -> None:
    """Shrout and Fleiss, Psychological Bulletin 1979;86:420–428: six targets, four judges."""
    judged = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert icc(judged) == pytest.approx((0.290, 0.019, 0.761), abs=0.001)


def test_icc_counts_a_constant_difference_between_readers_as_disagreement() -> None:
    first = np.arange(20.0)
    assert icc(np.stack([first, first], axis=1)).value == 1.0
    assert icc(np.stack([first, first + 5], axis=1)).value < 0.8


def test_ac1_of_the_published_example() -> None:
    """Krippendorff's four raters, 12 units, gaps: AC1 0.775, 95 % CI 0.461 to 1 (Gwet 2014)."""
    raters = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    )
    assert ac2(raters.T - 1, 5, weighted=False) == pytest.approx((0.775, 0.461, 1.0), abs=0.001)


def test_ac2_counts_near_misses_as_partial_agreement_and_survives_prevalence() -> None:
    first = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    near = np.minimum(first + (np.arange(10) % 3 == 0), 4)
    pair = np.stack([first, near], axis=1)
    assert ac2(pair, 5).value > ac2(pair, 5, weighted=False).value
    prevalent = np.zeros((100, 2), dtype=int)
    prevalent[:4, 0] = 1
    assert ac2(prevalent, 2).value > 0.9  # Cohen's kappa is 0 here
    assert ac2(np.stack([first, first], axis=1), 5).value == pytest.approx(1)


def test_icc_of_constant_readings_is_nan() -> None:
    assert np.isnan(icc(np.ones((5, 2))).value)


def test_corrected_paired_test_is_more_conservative_than_the_plain_t_test() -> None:
    differences = np.random.default_rng(0).normal(0.02, 0.03, 15)
    corrected = corrected_paired_test(differences, 1 / 4)
    plain = stats.ttest_1samp(differences, 0)
    assert corrected.mean == pytest.approx(differences.mean())
    # Nadeau and Bengio: the variance of the mean grows from 1/n to 1/n + test share.
    assert corrected.p > plain.pvalue
    t = plain.statistic * np.sqrt((1 / 15) / (1 / 15 + 1 / 4))
    assert corrected.p == pytest.approx(2 * stats.t.sf(t, 14))
    assert corrected.low < 0 < corrected.high


def test_corrected_paired_test_without_any_difference() -> None:
    assert corrected_paired_test([0.0, 0.0, 0.0], 1 / 4).p == 1.0


def test_calibrated_predictions_have_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 100_000)
    correct = rng.random(len(confidence)) < confidence
    assert reliability(confidence, correct).error < 0.01
    overconfident = reliability(np.full(1000, 0.95), np.arange(1000) < 700)
    assert overconfident.error == pytest.approx(0.25)
    assert overconfident.predictions.tolist() == [1000]


def test_proportion_has_the_exact_interval() -> None:
    """The severity paper's 35 of 39: 0.8974 (0.7578–0.9713)."""
    assert proportion(35, 39) == pytest.approx((0.8974, 0.7578, 0.9713), abs=1e-4)


def test_mean_and_standard_deviation_in_percent() -> None:
    assert mean_sd([0.5, 0.7]) == "60.0 ± 14.1"
    assert mean_sd([0.5]) == "50.0"
