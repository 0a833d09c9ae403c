"""An exported network, computed by PyTorch node by node on any device.

So the file that TensorRT compiles, with its precision of every tensor, meets a GPU where neither
TensorRT nor the rest of the node is installed: only torch, numpy and onnx are imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Float32Array = NDArray[np.float32]

_TYPES: Final[dict[int, torch.dtype]] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.INT64: torch.int64,
}
Attributes = dict[str, Any]


class TorchGraph:
    """An ONNX network.

    Parameters
    ----------
    path : Path
    device : str
        As PyTorch names it.

    Raises
    ------
    ValueError
        The network has an operator that no network of this project has.
    """

    def __init__(self, path: Path, device: str) -> None:
        graph = onnx.load(path).graph
        self._device = device
        self._outputs = [output.name for output in graph.output]
        self._constants = {
            each.name: _on_device(numpy_helper.to_array(each), device) for each in graph.initializer
        }
        self._nodes: list[tuple[str, Attributes, list[str], str]] = []
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                value = numpy_helper.to_array(attributes["value"])
                self._constants[node.output[0]] = _on_device(value, device)
            elif node.op_type not in _OPERATORS:
                raise ValueError(f"{path}: operator {node.op_type} is not implemented here")
            else:
                self._nodes.append((node.op_type, attributes, list(node.input), node.output[0]))
        last_use = {name: number for number, node in enumerate(self._nodes) for name in node[2]}
        self._unused_after: dict[int, list[str]] = {}
        for name, number in last_use.items():
            self._unused_after.setdefault(number, []).append(name)

    def run(self, inputs: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
        """Compute all outputs for inputs in the memory of the host."""
        tensors = {name: torch.from_numpy(array).to(self._device) for name, array in inputs.items()}
        return {name: output.cpu().numpy() for name, output in self.compute(tensors).items()}

    @torch.inference_mode()
    def compute(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute all outputs for inputs on the device."""
        values = dict(inputs)
        for number, (operator, attributes, names, output) in enumerate(self._nodes):
            tensors = [self._constants[n] if n in self._constants else values[n] for n in names]
            values[output] = _OPERATORS[operator](attributes, *tensors)
            for name in self._unused_after.get(number, ()):
                values.pop(name, None)
        return {name: values[name] for name in self._outputs}


def _on_device(array: NDArray[Any], device: str) -> Tensor:
    """Integers are shapes and axes, which PyTorch wants on the CPU."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(device) if tensor.is_floating_point() else tensor


def _pads(attributes: Attributes) -> list[int]:
    """Padding of each axis; both ends have the same in all networks here."""
    pads = attributes.get("pads", [0, 0])
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        raise ValueError(f"uneven padding {pads}")
    return list(pads[:half])


def _convolution(attributes: Attributes, x: Tensor, weight: Tensor, *bias: Tensor) -> Tensor:
    call = functional.conv3d if x.dim() == 5 else functional.conv2d
    added = bias[0] if bias else None
    return call(x, weight, added, attributes["strides"], _pads(attributes))


def _maximum_pool(attributes: Attributes, x: Tensor) -> Tensor:
    call = functional.max_pool3d if x.dim() == 5 else functional.max_pool2d
    return call(x, attributes["kernel_shape"], attributes["strides"], _pads(attributes))


def _average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    return functional.avg_pool2d(
        x,
        attributes["kernel_shape"],
        attributes["strides"],
        _pads(attributes),
        ceil_mode=bool(attributes["ceil_mode"]),
        count_include_pad=bool(attributes["count_include_pad"]),
    )


def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    product = a @ (b.T if attributes.get("transB") else b)
    return attributes["alpha"] * product + attributes["beta"] * c


def _reduce(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        dims = attributes["axes"] if axes is None else axes.tolist()
        return call(x, dim=list(dims), keepdim=bool(attributes["keepdims"]))

    return reduce


_OPERATORS: Final[dict[str, Callable[..., Tensor]]] = {
    "Add": lambda _, a, b: a + b,
    "AveragePool": _average_pool,
    "Cast": lambda attributes, x: x.to(_TYPES[attributes["to"]]),
    "Conv": _convolution,
    "Div": lambda _, a, b: a / b,
    "Gather": lambda _, x, index: x[index],
    "Gemm": _gemm,
    "MaxPool": _maximum_pool,
    "Mul": lambda _, a, b: a * b,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": lambda _, x: torch.relu(x),
    "Shape": lambda _, x: torch.tensor(x.shape),
    "Sigmoid": lambda _, x: torch.sigmoid(x),
    "Softmax": lambda attributes, x: torch.softmax(x, dim=attributes["axis"]),
}
