"""Conversion to explicit precision, and its emulation on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.builders.networks import one_layer_each
from training.release.evaluate import session
from training.release.precision.graph import (
    convert,
    element_types,
    emulate,
    multiply_adds,
    without_identities,
)

if TYPE_CHECKING:
    from tests.support.builders.networks import Float32Array


def _run(network: onnx.ModelProto, images: Float32Array) -> Float32Array:
    (output,) = session(network.SerializeToString()).run(None, {"images": images})
    return np.asarray(output)


def test_chosen_layers_take_compute_and_return_fp16_between_fp32_ends() -> None:
    converted = convert(one_layer_each(), ["first", "relu"])
    types = element_types(converted)
    nodes = {node.name: node for node in converted.graph.node}
    for layer, kind in (
        ("first", TensorProto.FLOAT16),
        ("relu", TensorProto.FLOAT16),
        ("second", TensorProto.FLOAT),
    ):
        used = [*nodes[layer].input, *nodes[layer].output]
        assert {types[name] for name in used} == {kind}, layer
    (given,), (returned,) = converted.graph.input, converted.graph.output
    assert {types[given.name], types[returned.name]} == {TensorProto.FLOAT}
    assert [node.op_type for node in converted.graph.node].count("Cast") == 2


@pytest.mark.parametrize("layers", [[], ["second", "mean"], ["first", "relu", "second", "mean"]])
def test_a_converted_network_predicts_the_same_up_to_rounding(layers: list[str]) -> None:
    images = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    network = one_layer_each()
    converted = convert(network, layers)
    expected = _run(network, images)
    assert converted.graph.output == network.graph.output
    for found in (_run(converted, images), _run(emulate(converted), images)):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=5e-3)
    assert np.array_equal(_run(converted, images), expected) == (not layers)


def test_a_weight_that_two_precisions_share_is_stored_in_both() -> None:
    network = one_layer_each()
    network.graph.node[2].input[1] = network.graph.node[0].input[1]  # "second" uses the kernel too
    converted = convert(network, ["first"])
    kinds = sorted(t.data_type for t in converted.graph.initializer if "kernel" in t.name)
    assert kinds == [TensorProto.FLOAT, TensorProto.FLOAT16]
    images = np.ones((1, 1, 8, 8), np.float32)
    np.testing.assert_allclose(_run(converted, images), _run(network, images), rtol=5e-3)


def test_weights_that_the_exporter_shares_are_those_of_both_layers() -> None:
    network = one_layer_each()
    network.graph.node.insert(0, helper.make_node("Identity", ["kernel"], ["alias"], name="same"))
    network.graph.node[3].input[1] = "alias"
    plain = without_identities(network)
    assert [node.name for node in plain.graph.node] == ["first", "relu", "second", "mean"]
    images = np.ones((1, 1, 8, 8), np.float32)
    np.testing.assert_array_equal(_run(plain, images), _run(network, images))


def test_emulation_overflows_where_fp16_does_and_onnxruntime_does_not() -> None:
    """The reason for the emulation: onnxruntime leaves out casts, so a CPU hides overflow."""
    network = one_layer_each(scale=3e4)
    converted = convert(network, ["first", "relu"])
    images = np.ones((1, 1, 8, 8), np.float32)
    weights = {t.name: numpy_helper.to_array(t) for t in converted.graph.initializer}
    assert all(np.isfinite(values).all() for values in weights.values())
    assert np.isfinite(_run(converted, images)).all()
    assert not np.isfinite(_run(emulate(converted), images)).all()


def test_emulated_values_are_fp16_values() -> None:
    converted = convert(one_layer_each(), ["first", "relu", "second", "mean"])
    output = _run(emulate(converted), np.full((1, 1, 8, 8), 1 / 3, np.float32))
    np.testing.assert_array_equal(output, output.astype(np.float16).astype(np.float32))


def test_work_is_counted_from_kernels_and_output_sizes() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["y"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Flatten", ["y"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w"], ["z"], name="gemm"),
    ]
    weights = {"k": np.ones((2, 1, 3, 3), np.float32), "w": np.ones((8, 5), np.float32)}
    graph = helper.make_graph(
        nodes,
        "work",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    conv, gemm = 2 * 9 * 2 * 2, 8 * 5
    assert multiply_adds(network) == pytest.approx(
        {"conv": conv / (conv + gemm), "gemm": gemm / (conv + gemm)}
    )
