"""Measured ranges of the tensors of a network: what FP16 has to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.release.evaluate import session
from training.release.precision.graph import (
    WITH_WEIGHTS,
    element_types,
    float_layers,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from worker.grading.records import Float32Array


@dataclass(frozen=True, slots=True)
class Range:
    """Figures of one layer over all inputs.

    Attributes
    ----------
    largest : float
        Largest magnitude among the inputs, weights and outputs of the layer.
    partial_sum : float
        Largest sum of the magnitudes of all products of one output value, which no partial sum
        can exceed in whatever order it is accumulated; 0 for layers without weights.
    """

    largest: float = 0.0
    partial_sum: float = 0.0

    def __or__(self, other: Range) -> Range:
        return Range(
            max(self.largest, other.largest),
            max(self.partial_sum, other.partial_sum),
        )


def measure(
    network: onnx.ModelProto, inputs: Iterable[Mapping[str, Float32Array]]
) -> dict[str, Range]:
    """Run an FP32 network and return the figures of its floating-point layers by their names."""
    layers = _float_tensors(network)
    tensors = dict.fromkeys(name for names in layers.values() for name in names)
    probed, sums = _probed(network, list(tensors))
    runtime = session(probed.SerializeToString())
    wanted = [output.name for output in runtime.get_outputs()]
    found: dict[str, Range] = dict.fromkeys(layers, Range())
    for given in inputs:
        values = dict(zip(wanted, runtime.run(wanted, dict(given)), strict=True))
        for layer, names in layers.items():
            for name in names:
                found[layer] |= Range(float(values[f"{name}/largest"]))
            if layer in sums:
                found[layer] |= Range(partial_sum=float(values[sums[layer]]))
    return found


def _float_tensors(network: onnx.ModelProto) -> dict[str, list[str]]:
    """Names of the FP32 tensors of every layer."""
    types = element_types(network)
    return {
        layer: [n for n in (*node.input, *node.output) if types.get(n) == TensorProto.FLOAT]
        for layer, node in float_layers(network).items()
    }


def _probed(network: onnx.ModelProto, tensors: list[str]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return the network with the figures of its tensors as outputs, and the names of the sums."""
    probed = onnx.ModelProto()
    probed.CopyFrom(network)
    graph = probed.graph
    figures: list[str] = []

    def largest(source: str, target: str) -> None:
        graph.node.append(helper.make_node("ReduceMax", [source], [target], keepdims=0))
        figures.append(target)

    for name in tensors:
        graph.node.append(helper.make_node("Abs", [name], [f"{name}/abs"]))
        largest(f"{name}/abs", f"{name}/largest")
    sums = {}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in network.graph.node:
        if node.op_type not in WITH_WEIGHTS:
            continue
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        twin.name = f"{node.name}/magnitudes"
        twin.output[0] = f"{node.output[0]}/magnitudes"
        twin.input[0] = f"{node.input[0]}/abs"
        for index, name in enumerate(node.input[1:], 1):
            twin.input[index] = f"{name}/magnitude"
            if name in weights:  # layers may share them
                values = np.abs(numpy_helper.to_array(weights.pop(name)))
                graph.initializer.append(numpy_helper.from_array(values, twin.input[index]))
        graph.node.append(twin)
        sums[node.name] = f"{node.output[0]}/sum"
        largest(twin.output[0], sums[node.name])
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(f, TensorProto.FLOAT, []) for f in figures)
    return probed, sums
