"""ONNX graphs of explicit precision: types of tensors, conversion of layers to FP16, emulation.

A layer is a node of the graph. Only its floating-point tensors have a precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

WITH_WEIGHTS: Final = frozenset({"Conv", "Gemm"})
_SUFFIX: Final[dict[int, str]] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


def element_types(network: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor of a graph by its name (`TensorProto.FLOAT`, …)."""
    graph = onnx.shape_inference.infer_shapes(network, strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def without_identities(network: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network without ``Identity``, through which the exporter shares equal weights."""
    plain = onnx.ModelProto()
    plain.CopyFrom(network)
    graph = plain.graph
    ends = {output.name for output in graph.output}
    nodes = list(graph.node)
    graph.ClearField("node")
    source: dict[str, str] = {}
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = source.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in ends:
            source[node.output[0]] = node.input[0]
        else:
            graph.node.append(node)
    return plain


def float_layers(network: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return the nodes of an FP32 graph that compute floating-point tensors, by their names."""
    types = element_types(network)
    return {
        node.name: node
        for node in network.graph.node
        if any(types.get(name) == TensorProto.FLOAT for name in node.output)
    }


def multiply_adds(network: onnx.ModelProto) -> dict[str, float]:
    """Share of each layer with weights in the multiply-adds of the network."""
    graph = onnx.shape_inference.infer_shapes(network, strict_mode=True).graph
    values = (*graph.output, *graph.value_info)
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in values
    }
    weights = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    found = {
        node.name: weights[node.input[1]] * float(np.prod(shapes[node.output[0]][2:]))
        for node in graph.node
        if node.op_type in WITH_WEIGHTS
    }
    return {layer: count / sum(found.values()) for layer, count in found.items()}


def convert(network: onnx.ModelProto, fp16_layers: Collection[str]) -> onnx.ModelProto:
    """Convert some layers of an FP32 network to FP16.

    Casts are inserted where precisions meet. Inputs and outputs of the network stay FP32, and all
    tensors keep their names.

    Parameters
    ----------
    network : ModelProto
        All floating-point tensors are FP32, and every node has a name of its own.
    fp16_layers : collection of str
        Names of the nodes that take, compute and return FP16.
    """
    converted = onnx.ModelProto()
    converted.CopyFrom(network)
    graph = converted.graph
    nodes, weights = list(graph.node), list(graph.initializer)
    for field in ("node", "initializer", "value_info"):
        graph.ClearField(field)
    conversion = _Conversion(network, graph, {tensor.name: tensor for tensor in weights})
    for node in nodes:
        conversion.add(node, TensorProto.FLOAT16 if node.name in fp16_layers else TensorProto.FLOAT)
    onnx.checker.check_model(converted, full_check=True)
    return converted


class _Conversion:
    """Builds the converted graph node by node, in topological order.

    Attributes
    ----------
    names : dict
        Name of each floating-point tensor in the new graph, by its old name and its precision.
    """

    def __init__(
        self, network: onnx.ModelProto, graph: onnx.GraphProto, weights: dict[str, TensorProto]
    ) -> None:
        self._graph = graph
        self._weights = weights
        self._floats = {
            name for name, kind in element_types(network).items() if kind == TensorProto.FLOAT
        }
        self._ends = {output.name for output in graph.output}
        self.names: dict[tuple[str, int], str] = {
            (value.name, TensorProto.FLOAT): value.name for value in graph.input
        }

    def add(self, node: onnx.NodeProto, precision: int) -> None:
        for index, name in enumerate(node.input):
            if name in self._floats:
                node.input[index] = self._as(name, precision)
            elif name in self._weights:  # integers, such as axes
                self._weight(name, self._weights[name].data_type)
        outputs = [name for name in node.output if name in self._floats]
        for name in outputs:
            self.names[name, precision] = name
        if precision == TensorProto.FLOAT16:
            for index, name in enumerate(node.output):
                if name in self._ends:
                    node.output[index] = self.names[name, precision] = f"{name}/fp16"
        self._graph.node.append(node)
        for name in outputs:
            if name in self._ends:
                self._as(name, TensorProto.FLOAT)

    def _as(self, name: str, precision: int) -> str:
        """Return the name of a tensor in one precision, after adding what makes it."""
        if (name, precision) in self.names:
            return self.names[name, precision]
        if name in self._weights:
            return self._weight(name, precision)
        (source,) = (self.names[name, kind] for kind in _SUFFIX if (name, kind) in self.names)
        target = name if name in self._ends else f"{name}/{_SUFFIX[precision]}"
        self._graph.node.append(
            helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=precision)
        )
        self.names[name, precision] = target
        return target

    def _weight(self, name: str, precision: int) -> str:
        if (name, precision) in self.names:
            return self.names[name, precision]
        other = any(key == name for key, _ in self.names)
        target = f"{name}/{_SUFFIX[precision]}" if other else name
        tensor = self._weights[name]
        if precision != tensor.data_type:
            with np.errstate(over="ignore"):
                values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor = numpy_helper.from_array(values)
        self._graph.initializer.append(tensor)
        self._graph.initializer[-1].name = target
        self.names[name, precision] = target
        return target


def emulate(network: onnx.ModelProto) -> onnx.ModelProto:
    """Return an FP32 network that rounds to FP16 wherever `network` does.

    onnxruntime has few FP16 kernels for the CPU. It computes the other layers in FP32 and leaves
    out the casts between them, so that intermediate values are neither rounded nor overflow. Here
    every output of an FP16 layer is rounded, as by a GPU that accumulates in FP32. (TensorRT fuses
    layers and then rounds less often.)
    """
    types = element_types(network)
    emulated = onnx.ModelProto()
    emulated.CopyFrom(network)
    graph = emulated.graph
    nodes, weights = list(graph.node), list(graph.initializer)
    for field in ("node", "initializer", "value_info"):
        graph.ClearField(field)
    for tensor in weights:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor = numpy_helper.from_array(values, tensor.name)
        graph.initializer.append(tensor)
    for node in nodes:
        rounded = [name for name in node.output if types[name] == TensorProto.FLOAT16]
        if node.op_type == "Cast" and types[node.input[0]] in _SUFFIX:
            node = helper.make_node("Identity", node.input, node.output, name=node.name)
        for index, name in enumerate(node.output):
            if name in rounded:
                node.output[index] = f"{name}/exact"
        graph.node.append(node)
        for name in rounded:
            graph.node.extend(round_to_fp16(f"{name}/exact", name))
    return emulated


def round_to_fp16(source: str, target: str) -> Iterator[onnx.NodeProto]:
    """Yield nodes that round an FP32 tensor to FP16 values; onnxruntime keeps both casts."""
    short = f"{target}/rounded"
    yield helper.make_node("Cast", [source], [short], to=TensorProto.FLOAT16)
    yield helper.make_node("Cast", [short], [target], to=TensorProto.FLOAT)
