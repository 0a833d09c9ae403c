"""Models with a network for each backend, to assemble repositories from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.builders.stand_in_models import describe, write_stand_ins
from tests.support.builders.trtexec import TensorRT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def source_models(tmp_path: Path) -> Path:
    """Folder of models for every backend; what is in ``model.fp16.onnx`` does not matter."""
    folder = write_stand_ins(tmp_path / "models")
    for name in ("rating", "severity"):
        write_fp16(folder / name / "1")
    return folder


@pytest.fixture
def tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorRT:
    """TensorRT 11 and a GPU."""
    installed = TensorRT(tmp_path / "tensorrt")
    monkeypatch.setenv("PATH", str(installed.bin), prepend=os.pathsep)
    return installed


def write_fp16(version: Path, content: bytes | None = None) -> None:
    """Write ``model.fp16.onnx`` of a version, with its hash into ``model.json``."""
    network = version / "model.fp16.onnx"
    network.write_bytes(content or str(version).encode())
    sha256 = hashlib.sha256(network.read_bytes()).hexdigest()
    path = version / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fp16_sha256": sha256}))


def add_version(models: Path, name: str, number: str) -> Path:
    """Add a version with weights of its own."""
    version = shutil.copytree(models / name / "1", models / name / number)
    with (version / "model.onnx").open("ab") as network:
        network.write(number.encode())
    describe(models, name, version=number)
    write_fp16(version)
    return version


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
