"""Repositories that build_engines.sh assembles.

TensorRT is not available to the tests. A script that records its arguments takes the place of
`trtexec`, so that the calls of the compiler are tested, but not the engines.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.support.builders.stand_in_models import MODELS, write_stand_ins

if TYPE_CHECKING:
    from pathlib import Path

RECORDER = """#!/bin/sh
if [ "$1" = --help ]; then echo 'TensorRT v0'; exit; fi
for argument; do
  echo "$argument" >>"$RECORD"
  case $argument in --saveEngine=*) : >"${argument#*=}";; esac
done
"""


def build(
    backend: str, source: Path, target: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", MODELS / "build_engines.sh", backend, source, target],
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def served_config(target: Path, name: str) -> Any:
    text = (target / "served" / name / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_stand_ins(tmp_path / "models")


def test_cpu_repository_contains_the_networks_and_their_hashes(
    models: Path, tmp_path: Path
) -> None:
    target = tmp_path / "repository"
    assert build("onnxruntime", models, target).returncode == 0
    for name in ("rating", "severity"):
        network = (models / name / "1" / "model.onnx").read_bytes()
        assert (target / "served" / name / "1" / "model.onnx").read_bytes() == network
        config = served_config(target, name)
        assert config.platform == "onnxruntime_onnx"
        described = json.loads((models / name / "1" / "model.json").read_text())
        stated = config.parameters["weights_sha256.1"].string_value
        assert stated == described["weights_sha256"]


def test_repository_is_rebuilt_only_if_a_network_has_changed(models: Path, tmp_path: Path) -> None:
    target = tmp_path / "repository"
    assert "is built" in build("onnxruntime", models, target).stdout
    assert "up to date" in build("onnxruntime", models, target).stdout
    network = models / "rating" / "1" / "model.onnx"
    network.write_bytes(network.read_bytes() + b"\x00")
    assert "is built" in build("onnxruntime", models, target).stdout
    assert (target / "served/rating/1/model.onnx").read_bytes() == network.read_bytes()


def test_engines_are_compiled_for_the_shapes_in_the_configuration(
    models: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("trtexec", RECORDER), ("nvidia-smi", "#!/bin/sh\necho GPU, 9.0\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    record = tmp_path / "record"
    target = tmp_path / "repository"
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    result = build("tensorrt", models, target, {"PATH": path, "RECORD": str(record)})
    assert result.returncode == 0, result.stderr

    asked = record.read_text().splitlines()
    assert asked.count("--fp16") == 2
    assert asked.count(f"--timingCacheFile={target}/timing.cache") == 2
    for name in ("rating", "severity"):
        config = served_config(target, name)
        assert config.platform == "tensorrt_plan"
        assert (target / "served" / name / "1" / config.default_model_filename).exists()
        (tensor,) = config.input
        assert f"--minShapes={_shape(tensor, 1)}" in asked
        assert f"--maxShapes={_shape(tensor, config.max_batch_size)}" in asked
        study = 6 if name == "rating" else 1
        assert f"--optShapes={_shape(tensor, study)}" in asked


def _shape(tensor: Any, batch: int) -> str:
    return f"{tensor.name}:{'x'.join(map(str, [batch, *tensor.dims]))}"


def test_failed_build_does_not_change_the_served_repository(models: Path, tmp_path: Path) -> None:
    target = tmp_path / "repository"
    build("onnxruntime", models, target)
    (models / "severity" / "config.onnx.pbtxt").unlink()
    assert build("onnxruntime", models, target).returncode != 0
    assert (target / "served/severity/1/model.onnx").exists()
