"""ONNX operators that TensorRT's parser documents as supported, as far as the networks need them.

Source: ``docs/operators.md`` of onnx/onnx-tensorrt (release 8.4), with its restrictions: Conv and
pooling in two or three dimensions, weights as initialisers, no indices from MaxPool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from pathlib import Path

TENSORRT_OPERATORS = {
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Constant",
    "Conv",
    "Div",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "MatMul",
    "MaxPool",
    "Mul",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Softmax",
    "Sub",
    "Transpose",
}


def operators(path: Path) -> set[str]:
    """Return the operators of a graph, after checking TensorRT's restrictions on them."""
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            assert node.input[1] in weights
        if node.op_type == "MaxPool":
            assert len(node.output) == 1
        if node.op_type in {"Conv", "MaxPool", "AveragePool"}:
            (kernel,) = (a.ints for a in node.attribute if a.name == "kernel_shape")
            assert len(kernel) in (2, 3)
    return {node.op_type for node in graph.node}
