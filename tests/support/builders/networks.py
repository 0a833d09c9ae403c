"""ONNX networks for tests of their precision: a layer of each kind, and one of full size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.release.precision.graph import convert, float_layers, without_identities
from training.release.precision.layers import trunk

if TYPE_CHECKING:
    from pathlib import Path

Float32Array = NDArray[np.float32]


def one_layer_each(scale: float = 1.0) -> onnx.ModelProto:
    """Build ``images`` (n, 1, 8, 8) → convolution, ReLU, convolution, mean → ``probabilities``.

    Parameters
    ----------
    scale : float
        The weights of the first convolution are multiplied by it and those of the second divided,
        so that the values between them are large. FP16 can hold weights of up to 1.5 × 3e4.
    """
    rng = np.random.default_rng(1)
    kernel = rng.random((1, 1, 3, 3), dtype=np.float32) + np.float32(0.5)
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["a"], name="first", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "other"], ["c"], name="second", kernel_shape=[3, 3]),
        helper.make_node(
            "ReduceMean", ["c"], ["probabilities"], name="mean", axes=[1, 2, 3], keepdims=0
        ),
    ]
    weights = {
        "kernel": kernel * np.float32(scale),
        "other": rng.random((1, 1, 3, 3), dtype=np.float32) / np.float32(scale),
    }
    graph = helper.make_graph(
        nodes,
        "one-layer-each",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def full_size_severity(fp32: Path, fp16: Path) -> None:
    """Export the severity network at the paper's size, with random weights, in both precisions.

    Its predictions are useless, so that the FP16 layers are those that they are by their place.
    """
    import torch  # not needed by the small networks, and large

    from training.release.export import to_onnx
    from training.severity.network import FULL_WIDTH, INPUT_SHAPE, SeverityNet

    torch.manual_seed(0)
    net = SeverityNet(152, FULL_WIDTH)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("body.4.weight"):  # otherwise all of these convolutions are zero
                parameter.fill_(0.1)
    to_onnx(net, (1, *INPUT_SHAPE), fp32, "volume", ["probability", "saliency"])
    network = without_identities(onnx.load(fp32))
    onnx.save(convert(network, trunk(float_layers(network))), fp16)
