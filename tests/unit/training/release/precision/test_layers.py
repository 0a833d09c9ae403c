"""The decision: each reason for FP32, and nothing without a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.builders.networks import one_layer_each
from training.release.precision.graph import element_types
from training.release.precision.layers import decide

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

IMAGES = {"images": np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)}


def _decide(
    network: onnx.ModelProto, images: dict[str, NDArray[np.float32]] = IMAGES
) -> tuple[onnx.ModelProto, dict[str, dict[str, object]]]:
    converted, kept = decide(network, lambda: [images])
    return converted, {layer.layer: layer.describe() for layer in kept}


def test_convolutions_and_what_follows_are_fp16_and_the_outputs_fp32() -> None:
    converted, kept = _decide(_softened(one_layer_each()))
    assert set(kept) == {"mean", "soft"}
    assert {entry["reason"] for entry in kept.values()} == {"output"}
    types = element_types(converted)
    assert types["a"] == types["b"] == types["c"] == TensorProto.FLOAT16


def test_a_layer_whose_values_are_too_large_stays_fp32() -> None:
    _, kept = _decide(_softened(one_layer_each(scale=1e4)))
    assert kept["first"]["reason"] == kept["relu"]["reason"] == kept["second"]["reason"] == "range"
    assert float(str(kept["relu"]["largest"])) > 4094


def test_a_layer_whose_rounding_changes_the_prediction_stays_fp32() -> None:
    """The second convolution subtracts neighbours that are nearly equal, and enlarges the rest."""
    network = one_layer_each()
    kernel, other = network.graph.initializer
    smooth = np.full((1, 1, 3, 3), 1.0, np.float32)
    kernel.CopyFrom(numpy_helper.from_array(smooth, kernel.name))
    sharp = np.zeros((1, 1, 3, 3), np.float32)
    sharp[0, 0, 1, :2] = 1000, -1000
    other.CopyFrom(numpy_helper.from_array(sharp, other.name))
    nearly_equal = {"images": np.float32(0.5) + np.float32(0.001) * IMAGES["images"]}
    converted, kept = _decide(_softened(network), nearly_equal)
    assert kept["first"]["reason"] == "parity"
    assert float(str(kept["first"]["probability_change"])) > 0.005
    assert element_types(converted)["a"] == TensorProto.FLOAT


def _softened(network: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with a sigmoid, so that its output is a probability."""
    network.graph.node[-1].output[0] = "logit"
    network.graph.node.append(helper.make_node("Sigmoid", ["logit"], ["probability"], name="soft"))
    network.graph.output[0].name = "probability"
    return network


def test_reasons_are_rounded_figures() -> None:
    _, kept = _decide(_softened(one_layer_each()))
    assert kept["mean"] == {
        "layer": "mean",
        "operator": "ReduceMean",
        "reason": "output",
        "largest": pytest.approx(kept["mean"]["largest"]),
        "multiply_adds_share": 0.0,
    }
