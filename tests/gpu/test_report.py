"""The command for a machine with a GPU, on the CPU: everything but CUDA."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from tests.gpu import report
from tests.gpu.graph import TorchGraph
from tests.support.paths import ROOT
from training.release.precision.parity import compare

if TYPE_CHECKING:
    from pathlib import Path

CPU = report.Options(device="cpu", volumes=1)
REDUCED = ["--device=cpu", "--layers=18", "--width=4", "--size=32", "--runs=1", "--volumes=0"]
FOLDERS = {folder.parent.name: folder for folder in report.versions()}


def run_onnx(path: Path, name: str, values: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: values}), strict=True))


def test_the_shipped_networks_are_computed_as_onnxruntime_does() -> None:
    for folder in FOLDERS.values():
        name, values, expected = report.golden(folder, 1)
        found = TorchGraph(folder / "model.onnx", "cpu").run({name: values})
        assert set(found) == set(expected)
        for key, output in found.items():
            np.testing.assert_allclose(output, expected[key], atol=2e-6)


def test_explicit_precision_is_computed_as_onnxruntime_does() -> None:
    path = FOLDERS["rating"] / "model.fp16.onnx"
    name, values, _ = report.golden(FOLDERS["rating"], None)
    found = TorchGraph(path, "cpu").run({name: values})
    assert compare(run_onnx(path, name, values), found).probability < 1e-3


def test_explicit_precision_makes_a_difference_that_is_small() -> None:
    """On a part of a volume, because PyTorch is slow in FP16 on CPUs."""
    folder = FOLDERS["severity"]
    name, values, _ = report.golden(folder, 1)
    part = values[..., 192:320, 192:320]
    full, half = (
        TorchGraph(folder / file, "cpu").run({name: part}) for file in report.FILES.values()
    )
    found = compare(full, half)
    assert 0 < found.probability < 0.01
    assert 0.999 < found.correlation < 1


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Erf", ["x"], ["y"])], "g",
        [value("x", onnx.TensorProto.FLOAT, [1])], [value("y", onnx.TensorProto.FLOAT, [1])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="Erf"):
        TorchGraph(tmp_path / "model.onnx", "cpu")


def test_a_network_that_lost_parity_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = shutil.copytree(FOLDERS["rating"], tmp_path / "rating" / "2")
    network = onnx.load(version / "model.fp16.onnx")
    largest = max(network.graph.initializer, key=lambda each: int(np.prod(each.dims)))
    weights = np.flip(numpy_helper.to_array(largest)).copy()
    largest.CopyFrom(numpy_helper.from_array(weights, largest.name))
    onnx.save(network, version / "model.fp16.onnx")
    monkeypatch.setattr(report, "MODELS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", *REDUCED, "--limit-s=0"])
    assert report.main() == 1
    text = capsys.readouterr().out
    assert text.count("**NOT within tolerance**") == 1
    assert "no time left" in text


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["report"])
    assert report.main() == 2
    assert "no GPU" in capsys.readouterr().err


def test_the_full_size_network_is_the_one_that_is_exported() -> None:
    """Folding batch normalisation, as the export does, changes nothing."""
    options = report.Options(device="cpu", layers=18, width=4, size=32)
    volume = torch.rand(2, 1, 16, 32, 32)
    folded = report.full_size(options)
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in folded.modules())
    with torch.no_grad():
        found = report._named(folded(volume))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(report, "_fold", lambda layers: None)
            expected = report._named(report.full_size(options)(volume))
    for name, output in found.items():
        np.testing.assert_allclose(output, expected[name], rtol=1e-4, atol=1e-6)


ONLY = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import runpy
sys.argv = ["report", *{arguments}]
runpy.run_module("tests.gpu.report", run_name="__main__")
"""


def test_it_needs_no_package_of_the_node(tmp_path: Path) -> None:
    """On a lent machine there are PyTorch, numpy and onnx, and nothing can be installed."""
    refused = {
        "pydantic",
        "SimpleITK",
        "sqlalchemy",
        "pydicom",
        "tritonclient",
        "onnxruntime",
        "pywt",
    }
    output = tmp_path / "gpu.md"
    program = ONLY.format(refused=refused, arguments=[*REDUCED, f"--output={output}"])
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert output.read_text() == result.stdout
    assert result.stdout.count("| within tolerance |") == 2
    for row in ("| FP32 | 1 |", "| BF16 | 4 |", "Not installed here."):
        assert row in result.stdout


def test_the_script_runs_it_with_onnxruntime_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("OUT", str(tmp_path))
    command = ["bash", str(ROOT / "tests" / "gpu" / "run.sh"), *REDUCED]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "gpu.md").read_text()
    assert "CPUExecutionProvider, FP32" in text
    assert "| `model.onnx` of that size | 4 |" in text
