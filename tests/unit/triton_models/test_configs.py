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
from triton_models.build_engines import read_models
from worker.grading.inference import golden

NAMES = ("rating", "severity")
BACKENDS = ("tensorrt", "python")


def read_config(name: str, backend: str) -> Any:
    """Configuration as Triton gets it. Hashes are those of the networks, which are checked."""
    (model,) = (each for each in read_models(MODELS) if each.folder.name == name)
    return text_format.Parse(model.served_config(backend), model_config_pb2.ModelConfig())


def shapes(config: Any) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return the shapes of inputs and outputs as clients see them, batch first."""
    return (
        {tensor.name: [-1, *tensor.dims] for tensor in config.input},
        {tensor.name: [-1, *tensor.dims] for tensor in config.output},
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_backend_serves_the_described_model(name: str, backend: str) -> None:
    config, description = read_config(name, backend), newest_description(name)
    assert config.name == description["name"] == name
    assert shapes(config) == (description["inputs"], description["outputs"])
    assert {tensor.data_type for tensor in [*config.input, *config.output]} == {
        model_config_pb2.TYPE_FP32
    }


def test_rating_is_batched_dynamically() -> None:
    config = read_config("rating", "tensorrt")
    assert list(config.dynamic_batching.preferred_batch_size) == [6, 12, 24, 48]
    assert config.max_batch_size == 48


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
