"""Repositories that build_engines.py assembles.

TensorRT is not available to the tests. Stand-ins refuse the options that ``trtexec`` of each
release refuses: calls of the compiler are tested, engines are not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.support.builders.source_models import add_version, write_fp16
from tests.support.builders.stand_in_models import MODELS, describe
from tests.support.paths import ROOT
from triton_models import build_engines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.builders.trtexec import TensorRT

SCRIPT = str(MODELS / "build_engines.py")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def run(
    backend: str, source: Path, target: Path, python: tuple[str, ...] = (sys.executable,)
) -> subprocess.CompletedProcess[str]:
    """Run the program as compose does: as a file, without the rest of the repository."""
    command = [*python, SCRIPT, backend, str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def served_config(target: Path, name: str) -> Any:
    text = (target / "served" / name / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


# --- Any Python, any place ------------------------------------------------------------------------
def test_it_runs_alone_with_the_standard_library(source_models: Path, target: Path) -> None:
    isolated = (sys.executable, "-I", "-S")
    result = run("python", source_models, target, isolated)
    assert result.returncode == 0, result.stderr
    assert "is built" in result.stdout


def test_it_uses_nothing_newer_than_python_3_10(tmp_path: Path) -> None:
    """Release 24.10 of NVIDIA's images has no newer one."""
    options = ["--python-version=3.10", f"--cache-dir={tmp_path}", "--config-file=", "--strict"]
    command = [sys.executable, "-m", "mypy", *options, SCRIPT]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("arguments", [[], ["onnxruntime", "a", "b"], ["python", "a"]])
def test_a_wrong_command_line_shows_the_right_one(arguments: list[str]) -> None:
    command = [sys.executable, SCRIPT, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "{python,tensorrt} SOURCE TARGET" in result.stderr


# --- The Python backend ---------------------------------------------------------------------------
def test_the_python_repository_has_networks_programs_and_hashes(
    source_models: Path, target: Path
) -> None:
    add_version(source_models, "rating", "2")
    add_version(source_models, "rating", "10")
    assert build_engines.build("python", source_models, target)
    for name, versions in (("rating", ("1", "2", "10")), ("severity", ("1",))):
        config = served_config(target, name)
        assert config.backend == "python"
        assert config.version_policy.WhichOneof("policy_choice") == "all"
        assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
        assert set(config.parameters) == {f"weights_sha256.{each}" for each in versions}
        for version in versions:
            served, source = target / "served" / name / version, source_models / name / version
            assert (served / "model.onnx").read_bytes() == (source / "model.onnx").read_bytes()
            program = (source_models / "python_backend" / "model.py").read_bytes()
            assert (served / "model.py").read_bytes() == program
            described = json.loads((source / "model.json").read_text())["weights_sha256"]
            assert config.parameters[f"weights_sha256.{version}"].string_value == described


def test_it_is_assembled_again_only_if_something_has_changed(
    source_models: Path, target: Path
) -> None:
    assert build_engines.build("python", source_models, target)
    assert not build_engines.build("python", source_models, target)
    program = source_models / "python_backend" / "model.py"
    program.write_text(program.read_text() + "\n")
    assert build_engines.build("python", source_models, target)
    add_version(source_models, "severity", "2")
    assert build_engines.build("python", source_models, target)
    assert not build_engines.build("python", source_models, target)
    shutil.rmtree(source_models / "severity" / "2")
    assert build_engines.build("python", source_models, target)
    assert not (target / "served" / "severity" / "2").exists()
    assert len(list((target / "builds").iterdir())) == 1


def test_another_account_can_read_it(source_models: Path, target: Path, tensorrt: TensorRT) -> None:
    before = os.umask(0o077)
    try:
        assert run("tensorrt", source_models, target).returncode == 0
    finally:
        os.umask(before)
    for path in (target, *target.rglob("*")):
        needed = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & needed == needed, path


# --- Engines --------------------------------------------------------------------------------------
@pytest.mark.parametrize("release", [10, 11])
def test_engines_are_compiled_with_options_that_each_tensorrt_knows(
    release: int, source_models: Path, target: Path, tensorrt: TensorRT
) -> None:
    tensorrt.install(release)
    assert run("tensorrt", source_models, target).returncode == 0
    compiled = {call[0]: call for call in tensorrt.calls() if call[0].startswith("--onnx=")}
    for name, study in (("rating", 6), ("severity", 1)):
        config = served_config(target, name)
        assert config.platform == "tensorrt_plan"
        assert config.version_policy.WhichOneof("policy_choice") == "all"
        assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
        assert (target / "served" / name / "1" / config.default_model_filename).exists()
        (tensor,) = config.input
        call = compiled[f"--onnx={source_models / name / '1' / 'model.fp16.onnx'}"]
        assert f"--minShapes={_shape(tensor, 1)}" in call
        assert f"--optShapes={_shape(tensor, study)}" in call
        assert f"--maxShapes={_shape(tensor, config.max_batch_size)}" in call
        assert "--skipInference" in call
        assert ("--stronglyTyped" in call) == (release == 10)
        assert not {"--fp16", "--bf16", "--int8", "--best"} & set(call)
        (warm_up,) = config.model_warmup
        assert warm_up.batch_size == study
        assert list(warm_up.inputs[tensor.name].dims) == list(tensor.dims)
        assert warm_up.inputs[tensor.name].data_type == tensor.data_type


def _shape(tensor: Any, batch: int) -> str:
    return f"{tensor.name}:{'x'.join(map(str, [batch, *tensor.dims]))}"


@pytest.mark.parametrize("release", [10, 11])
def test_the_stand_in_refuses_what_the_release_does_not_know(
    release: int, tensorrt: TensorRT
) -> None:
    """A control: without it, the test above could not fail."""
    tensorrt.install(release)
    for option in ("--fp16", "--noCudaGraph"):
        command = [sys.executable, str(tensorrt.bin / "trtexec"), "--help", option]
        refused = subprocess.run(command, capture_output=True, check=False).returncode != 0
        assert refused == ((release == 11) == (option == "--fp16"))


def test_a_tensorrt_of_unknown_release_must_not_compile_for_fp32_in_silence(
    source_models: Path, target: Path, tensorrt: TensorRT
) -> None:
    tensorrt.install(10, banner="")
    assert run("tensorrt", source_models, target).returncode == 0
    calls = [call for call in tensorrt.calls() if call[0].startswith("--onnx=")]
    assert len(calls) == 2
    assert all("--stronglyTyped" in call for call in calls)


def test_each_engine_is_read_again_and_run_before_it_is_served(
    source_models: Path, target: Path, tensorrt: TensorRT
) -> None:
    assert run("tensorrt", source_models, target).returncode == 0
    loaded = [call for call in tensorrt.calls() if call[0].startswith("--loadEngine=")]
    assert [call[1] for call in loaded] == [
        "--shapes=crops:6x1x112x86",
        "--shapes=volume:1x1x16x512x512",
    ]


def test_only_what_has_changed_is_compiled(
    source_models: Path, target: Path, tensorrt: TensorRT
) -> None:
    def compiled() -> list[str]:
        assert run("tensorrt", source_models, target).returncode == 0
        return tensorrt.compiled()

    both = ["rating/1", "severity/1"]
    assert compiled() == both
    assert compiled() == []
    add_version(source_models, "rating", "2")
    assert compiled() == ["rating/2"]
    assert {path.name for path in (target / "served/rating").iterdir()} == {
        "1",
        "2",
        "config.pbtxt",
    }
    write_fp16(source_models / "rating" / "2", b"other precisions, same weights")
    assert compiled() == ["rating/2"]
    shutil.rmtree(source_models / "rating" / "2")
    assert compiled() == []
    config = source_models / "severity" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 1 ", "max_batch_size: 4 "))
    assert compiled() == ["severity/1"]
    tensorrt.plug_in("NVIDIA H100, 9.0")
    assert compiled() == both
    tensorrt.install(10)
    assert compiled() == both
    assert len(list((target / "engines").glob("*.plan"))) == 2
    assert len(list((target / "engines").glob("*.layers.json"))) == 2


def test_timings_are_kept_for_one_tensorrt_and_gpu(
    source_models: Path, target: Path, tensorrt: TensorRT
) -> None:
    def timings() -> Path:
        assert run("tensorrt", source_models, target).returncode == 0
        (option,) = {each for call in tensorrt.calls() for each in call if "timingCache" in each}
        (kept,) = (target / "engines").glob("*.timings")
        assert option == f"--timingCacheFile={kept}"
        return kept

    first = timings()
    add_version(source_models, "rating", "2")
    assert timings() == first
    tensorrt.plug_in("NVIDIA H100, 9.0")
    assert timings() != first


# --- What is refused ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("file", "key"), [("model.onnx", "weights_sha256"), ("model.fp16.onnx", "fp16_sha256")]
)
def test_a_network_that_is_not_the_described_one_is_refused(
    file: str, key: str, source_models: Path, target: Path, tensorrt: TensorRT
) -> None:
    path = source_models / "rating" / "1" / file
    path.write_bytes(path.read_bytes() + b"\0")
    result = run("tensorrt", source_models, target)
    assert result.returncode == 1
    assert f"{path} is not the file whose {key} is in model.json" in result.stderr
    assert "Restore both" in result.stderr
    assert tensorrt.calls() == []


@pytest.mark.parametrize("missing", ["file", "hash"])
def test_an_export_of_version_0_1_names_the_command_that_completes_it(
    missing: str, source_models: Path, target: Path, tensorrt: TensorRT
) -> None:
    version = source_models / "severity" / "1"
    if missing == "file":
        (version / "model.fp16.onnx").unlink()
    else:
        description = json.loads((version / "model.json").read_text())
        del description["fp16_sha256"]
        (version / "model.json").write_text(json.dumps(description))
    result = run("tensorrt", source_models, target)
    assert result.returncode == 1
    assert "severity/1 has no model.fp16.onnx" in result.stderr
    assert "python -m training fp16 severity --version 1 --cohort" in result.stderr
    assert build_engines.build("python", source_models, target / "python"), (
        "the CPU does not need it"
    )


def _remove_description(source_models: Path) -> None:
    (source_models / "rating" / "1" / "model.json").rename(source_models / "rating" / "model.json")


def _damage_description(source_models: Path) -> None:
    (source_models / "rating" / "1" / "model.json").write_text("{")


def _remove_inputs(source_models: Path) -> None:
    (source_models / "rating" / "1" / "model.json").write_text('{"inputs": [1]}')


def _remove_versions(source_models: Path) -> None:
    shutil.rmtree(source_models / "rating" / "1")


def _change_inputs(source_models: Path) -> None:
    add_version(source_models, "rating", "2")
    describe(source_models, "rating", inputs={"crops": [-1, 1, 64, 64]})


def _remove_batch(source_models: Path) -> None:
    config = source_models / "rating" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size", "# max_batch_size"))


def _remove_network(source_models: Path) -> None:
    (source_models / "rating" / "1" / "model.onnx").unlink()


def _remove_all(source_models: Path) -> None:
    shutil.rmtree(source_models)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove_description, "version 0.1 had model.json one folder up"),
        (_damage_description, "JSONDecodeError"),
        (_remove_inputs, "incomplete"),
        (_remove_versions, "must have one version"),
        (_change_inputs, "with the same inputs"),
        (_remove_batch, "no max_batch_size"),
        (_remove_network, "model.onnx"),
        (_remove_all, "holds no model"),
    ],
)
def test_an_incomplete_model_is_refused(
    damage: Callable[[Path], None],
    message: str,
    source_models: Path,
    target: Path,
    tensorrt: TensorRT,
) -> None:
    damage(source_models)
    result = run("tensorrt", source_models, target)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "what was served is missing" in result.stderr


def test_a_machine_without_tensorrt_or_gpu_is_told_what_it_lacks(
    source_models: Path, target: Path, tensorrt: TensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt.install(10, banner="[TensorRT v8601] [b1]")
    assert "TensorRT 10 or later is needed" in run("tensorrt", source_models, target).stderr
    tensorrt.install(11)
    tensorrt.plug_in(None)
    message = run("tensorrt", source_models, target).stderr
    assert "No GPU can be used here (No devices were found)" in message
    assert "Container Toolkit" in message
    monkeypatch.setenv("PATH", os.defpath)
    assert "There is no trtexec here" in run("tensorrt", source_models, target).stderr
