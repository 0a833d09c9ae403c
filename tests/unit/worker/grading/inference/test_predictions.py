"""Impossible predictions are refused."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import Failed
from worker.grading.inference.predictions import check_distribution, check_severity


@pytest.mark.parametrize(
    "row",
    [
        [0.2, 0.2, 0.2, 0.2, 0.3],
        [-0.1, 0.3, 0.3, 0.3, 0.2],
        [2.0, -1.0, 0.0, 0.0, 0.0],
        [np.nan, 0.25, 0.25, 0.25, 0.25],
        [np.inf, 0.0, 0.0, 0.0, 0.0],
    ],
)
def test_rows_that_are_no_distribution_are_refused(row: list[float]) -> None:
    good = [0.2] * 5
    with pytest.raises(Failed) as caught:
        check_distribution(np.array([good, row], np.float32), "rating")
    assert caught.value.code == "model-answer-invalid"


def test_half_precision_rounding_is_still_a_distribution() -> None:
    random = np.random.default_rng(0)
    rows = random.dirichlet(np.ones(5), 1000).astype(np.float16).astype(np.float32)
    assert check_distribution(rows, "rating") is rows


@pytest.mark.parametrize(
    ("probability", "saliency"),
    [(1.2, 1.0), (-0.1, 1.0), (np.nan, 1.0), (0.5, -1.0), (0.5, np.inf)],
)
def test_a_severity_prediction_out_of_range_is_refused(probability: float, saliency: float) -> None:
    with pytest.raises(Failed) as caught:
        check_severity(
            np.full((1, 1), probability, np.float32), np.full((1, 1, 16, 16), saliency, np.float32)
        )
    assert caught.value.code == "model-answer-invalid"
