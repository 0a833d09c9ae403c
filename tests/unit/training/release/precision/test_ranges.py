"""Measured ranges: the largest value, the largest possible sum, and what rounding loses."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from tests.support.builders.networks import one_layer_each
from training.release.precision.ranges import measure


def test_figures_are_those_of_the_values() -> None:
    network = one_layer_each()
    weights = {t.name: numpy_helper.to_array(t) for t in network.graph.initializer}
    images = np.full((1, 1, 8, 8), 0.5, np.float32)
    found = measure(network, [{"images": images}])
    first = 0.5 * weights["kernel"].sum()
    assert list(found) == ["first", "relu", "second", "mean"]
    assert found["first"].largest == pytest.approx(max(first, weights["kernel"].max()))
    assert found["first"].partial_sum == pytest.approx(first)  # no weight is negative
    assert found["second"].partial_sum == pytest.approx(first * weights["other"].sum())
    assert found["relu"].largest == pytest.approx(first)
    assert found["relu"].partial_sum == 0  # it has no weights


def test_signs_do_not_hide_large_partial_sums() -> None:
    network = one_layer_each()
    kernel = network.graph.initializer[0]
    values = np.zeros((1, 1, 3, 3), np.float32)
    values[0, 0, 0, :2] = 1000, -1000
    kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))
    found = measure(network, [{"images": np.ones((1, 1, 8, 8), np.float32)}])
    assert found["relu"].largest == 0
    assert found["first"].partial_sum == pytest.approx(2000)


def test_several_inputs_leave_the_largest_figures() -> None:
    network = one_layer_each()
    small, large = ({"images": np.full((1, 1, 8, 8), x, np.float32)} for x in (0.1, 7.0))
    both = measure(network, [large, small])
    assert both["relu"].largest == measure(network, [large])["relu"].largest
