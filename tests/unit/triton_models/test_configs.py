"""Configuration variants of each model: consistent with each other and with the model served."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.support.builders.stand_in_models import MODELS
from tests.support.shipped_models import newest_description, newest_folder
from worker.grading.inference import golden

NAMES = ("rating", "severity")
VARIANTS = {
    "config.pbtxt": ("platform", "tensorrt_plan"),
    "config.onnx.pbtxt": ("platform", "onnxruntime_onnx"),
    "config.embedded.pbtxt": ("backend", "python"),
}


def read_config(name: str, variant: str) -> Any:
    return text_format.Parse((MODELS / name / variant).read_text(), model_config_pb2.ModelConfig())


def shapes(config: Any) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return the shapes of inputs and outputs as clients see them, batch first."""
    return (
        {tensor.name: [-1, *tensor.dims] for tensor in config.input},
        {tensor.name: [-1, *tensor.dims] for tensor in config.output},
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_serves_the_described_model(name: str, variant: str) -> None:
    config, description = read_config(name, variant), newest_description(name)
    field, value = VARIANTS[variant]
    assert getattr(config, field) == value
    assert config.name == description["name"] == name
    assert shapes(config) == (description["inputs"], description["outputs"])
    assert {tensor.data_type for tensor in [*config.input, *config.output]} == {
        model_config_pb2.TYPE_FP32
    }
    assert config.max_batch_size == read_config(name, "config.pbtxt").max_batch_size


def test_rating_is_batched_dynamically_in_containers() -> None:
    for variant in ("config.pbtxt", "config.onnx.pbtxt"):
        config = read_config("rating", variant)
        assert config.HasField("dynamic_batching")
        assert max(config.dynamic_batching.preferred_batch_size) <= config.max_batch_size


@pytest.mark.parametrize("name", NAMES)
def test_network_agrees_with_the_description(name: str) -> None:
    description = newest_description(name)
    path = newest_folder(name) / "model.onnx"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == description["weights_sha256"]
    session = onnxruntime.InferenceSession(path)
    for tensors, described in (
        (session.get_inputs(), description["inputs"]),
        (session.get_outputs(), description["outputs"]),
    ):
        assert {each.name: [-1, *each.shape[1:]] for each in tensors} == described
        assert all(isinstance(each.shape[0], str) for each in tensors)  # dynamic batch size
    # Limits of onnxruntime 1.19 and TensorRT 10.5 in the containers.
    network = onnx.load(path, load_external_data=False)
    assert network.ir_version <= 10
    assert (
        max(each.version for each in network.opset_import if each.domain in ("", "ai.onnx")) <= 20
    )
    assert not any(each.external_data for each in network.graph.initializer)


@pytest.mark.parametrize("name", NAMES)
def test_golden_outputs_are_informative(name: str) -> None:
    """Golden outputs that any network would produce could not detect a fault."""
    description = newest_description(name)
    path = newest_folder(name) / "golden.npz"
    inputs, outputs = golden.load_golden(
        path, description["inputs"], description["outputs"], sha256=description["golden_sha256"]
    )
    for arrays, described in ((inputs, description["inputs"]), (outputs, description["outputs"])):
        for key, array in arrays.items():
            assert list(array.shape[1:]) == described[key][1:]
            assert np.ptp(array) > 0 or array.size == 1, f"{key} is constant"


@pytest.mark.parametrize("name", NAMES)
def test_described_tolerances_are_the_applied_ones(name: str) -> None:
    applied = {
        "rating": {"argmax": "equal", "probability": golden.PROBABILITY_TOLERANCE},
        "severity": {
            "probability": golden.PROBABILITY_TOLERANCE,
            "saliency_correlation": golden.SALIENCY_CORRELATION,
        },
    }
    assert newest_description(name)["tolerance"] == applied[name]
