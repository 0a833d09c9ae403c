"""Shipped weights: description, card, graph and golden test are consistent."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from core.model_versions import versions
from tests.support.paths import ROOT
from training.release.evaluate import session
from training.release.export import OPSET
from training.release.golden import dequantise

MODELS = ROOT / "triton_models"
NAMES = ("rating", "severity")


@pytest.fixture(
    params=[(name, version) for name in NAMES for version in versions(MODELS / name)],
    ids="-".join,
)
def version(request: pytest.FixtureRequest) -> Path:
    """Folder of one version of one model."""
    name, version = request.param
    return MODELS / name / version


def _info(version: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((version / "model.json").read_text(encoding="utf-8"))
    return info


def test_card_and_description_name_the_weights(version: Path) -> None:
    info = _info(version)
    sha256 = hashlib.sha256((version / "model.onnx").read_bytes()).hexdigest()
    assert info["weights_sha256"] == sha256
    fp16_sha256 = hashlib.sha256((version / "model.fp16.onnx").read_bytes()).hexdigest()
    assert info["fp16_sha256"] == fp16_sha256
    card = (version / "MODEL.md").read_text(encoding="utf-8")
    assert sha256 in card
    assert "not for clinical use" in card
    assert info["training_data"] == "synthetic"


def test_graph_is_readable_by_every_server(version: Path) -> None:
    graph = onnx.load(version / "model.onnx", load_external_data=False)
    assert graph.opset_import[0].version == OPSET
    assert graph.ir_version <= 10
    for values, declared in ((graph.graph.input, "inputs"), (graph.graph.output, "outputs")):
        dims = {v.name: [d.dim_value or -1 for d in v.type.tensor_type.shape.dim] for v in values}
        assert dims == _info(version)[declared]


def test_golden_outputs_are_those_of_the_model_and_are_sensitive(version: Path) -> None:
    runtime = session(version / "model.onnx")
    with np.load(version / "golden.npz") as golden:
        inputs = {i.name: dequantise(golden[i.name]) for i in runtime.get_inputs()}
        names = [o.name for o in runtime.get_outputs()]
        for name, output in zip(names, runtime.run(names, inputs), strict=True):
            assert np.allclose(output, golden[name], atol=1e-4 * np.abs(golden[name]).max())
        if version.parent.name == "rating":
            assert len(set(golden["probabilities"].argmax(axis=1).tolist())) >= 4
        else:
            assert abs(float(golden["probability"][0, 0]) - 0.5) > 0.05
            assert golden["saliency"][0].max() > 0


def test_held_out_scores_are_better_than_chance(version: Path) -> None:
    metrics = _info(version)["metrics"]
    if version.parent.name == "rating":
        assert metrics["image_accuracy"] > metrics["image_most_frequent_rating"] + 0.1
    else:
        assert metrics["accuracy_95ci"][0] > metrics["no_information_rate"]
