"""Small networks that replace the trained ones, in a model repository of their own.

They have the names and shapes of the real models, and their outputs depend on their input, so
that the client, the server and the golden self-test can be tried against each fault.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from core.model_versions import newest_version
from core.settings import SHIPPED_MODELS_DIR

if TYPE_CHECKING:
    from pathlib import Path

MODELS = SHIPPED_MODELS_DIR


def write_stand_ins(folder: Path, *, seed: int = 0) -> Path:
    """Write a models folder with small networks, their descriptions and golden outputs."""
    shipped = shutil.ignore_patterns("[0-9]*")
    for name in ("rating", "severity", "python_backend"):
        shutil.copytree(MODELS / name, folder / name, ignore=shipped)
    write_model(folder, "rating", rating_network(seed))
    write_model(folder, "severity", severity_network(seed))
    return folder


def write_model(
    folder: Path, name: str, network: onnx.ModelProto, number: str = "1", **changes: Any
) -> None:
    """Write one version with its description and golden output, replacing an earlier one."""
    version = folder / name / number
    version.mkdir(parents=True, exist_ok=True)
    path = version / "model.onnx"
    onnx.save(network, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = {each.name: [-1, *each.shape[1:]] for each in session.get_inputs()}
    outputs = {each.name: [-1, *each.shape[1:]] for each in session.get_outputs()}
    random = np.random.default_rng(1)
    rows = 6 if name == "rating" else 1
    golden = {
        key: random.integers(0, 256, (rows, *dims[1:]), np.uint8) for key, dims in inputs.items()
    }
    answers = session.run(
        list(outputs), {key: golden[key].astype(np.float32) / np.float32(255) for key in inputs}
    )
    arrays: dict[str, Any] = golden | dict(zip(outputs, answers, strict=True))
    np.savez_compressed(version / "golden.npz", **arrays)
    describe(folder, name, inputs=inputs, outputs=outputs, **changes)


def describe(folder: Path, name: str, **changes: Any) -> None:
    """Write ``model.json`` of a model's highest version; `changes` take precedence."""
    version = folder / name / newest_version(folder / name)
    path = version / "model.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    weights = (version / "model.onnx").read_bytes()
    description = {
        "name": name,
        "version": version.name,
        "display_name": f"stand-in {name}",
        "training_data": "synthetic",
        "intended_use": "Stand-in of a test; for no use at all.",
        "preprocessing": {"version": 1, "enhancement": "stationary"},
        **known,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "golden_sha256": hashlib.sha256((version / "golden.npz").read_bytes()).hexdigest(),
        **changes,
    }
    path.write_text(json.dumps(description))


def digests(folder: Path) -> str:
    """Return what ``EPVS_TRUSTED_MODELS`` must be for the models of a folder."""
    found = sorted(folder.glob("*/*/model.json"))
    return ",".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in found)


def rating_network(seed: int) -> onnx.ModelProto:
    """Means over 8 × 6 tiles of a crop, a random linear layer, softmax."""
    random = np.random.default_rng(seed)
    return _model(
        [
            helper.make_node(
                "AveragePool", ["crops"], ["tiles"], kernel_shape=[14, 14], strides=[14, 14]
            ),
            helper.make_node("Flatten", ["tiles"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        {"weights": random.normal(0, 1, (48, 5)).astype(np.float32)},
        {"crops": [1, 112, 86]},
        {"probabilities": [5]},
    )


def severity_network(seed: int) -> onnx.ModelProto:
    """Means over 16 × 32 × 32 tiles, weighted at random: their ReLU is the saliency."""
    random = np.random.default_rng(seed)
    return _model(
        [
            helper.make_node(
                "AveragePool",
                ["volume"],
                ["tiles"],
                kernel_shape=[16, 32, 32],
                strides=[16, 32, 32],
            ),
            helper.make_node("Squeeze", ["tiles", "axis"], ["map"]),
            helper.make_node("Mul", ["map", "weights"], ["weighted"]),
            helper.make_node("Relu", ["weighted"], ["saliency"]),
            helper.make_node("Flatten", ["weighted"], ["flat"], axis=1),
            helper.make_node("ReduceMean", ["flat", "axis"], ["score"], keepdims=1),
            helper.make_node("Sigmoid", ["score"], ["probability"]),
        ],
        {
            "axis": np.array([1]),
            "weights": random.normal(1, 20, (1, 16, 16)).astype(np.float32),
        },
        {"volume": [1, 16, 512, 512]},
        {"probability": [1], "saliency": [1, 16, 16]},
    )


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, ["n", *v]) for k, v in inputs.items()],
        [
            helper.make_tensor_value_info(k, TensorProto.FLOAT, ["n", *v])
            for k, v in outputs.items()
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model
