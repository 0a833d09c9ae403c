"""The gate: what is refused before a version is used, and how often the self-test runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from core.errors import Failed, Unavailable
from tests.support.builders.stand_in_models import describe, digests, write_stand_ins
from worker.grading.inference import gate as gate_module
from worker.grading.inference.description import ModelDescription
from worker.grading.inference.gate import Gate

if TYPE_CHECKING:
    from pathlib import Path


class Server:
    """Counts self-tests, and fails them as it is told."""

    def __init__(self) -> None:
        self.tested: list[str] = []
        self.error: Exception | None = None

    def check_golden(self, model: ModelDescription) -> None:
        self.tested.append(model.label)
        if self.error is not None:
            raise self.error


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_stand_ins(tmp_path)


def make_gate(models: Path, server: Server, passed: set[str] | None = None) -> Gate:
    trusted = digests(models).split(",")
    return Gate(cast("Any", server), models, trusted, set() if passed is None else passed)


def test_a_version_is_tested_before_its_first_use_only(models: Path) -> None:
    server, passed = Server(), set[str]()
    gate = make_gate(models, server, passed)
    for _ in range(3):
        gate.admit("rating", "1")
    assert server.tested == ["rating version 1"]
    make_gate(models, server, passed).admit("rating", "1")  # as a child of the tested process
    assert len(server.tested) == 1


def test_a_changed_description_is_another_version(models: Path) -> None:
    server = Server()
    gate = make_gate(models, server)
    gate.admit("rating", "1")
    describe(models, "rating", intended_use="Something else.")
    with pytest.raises(Failed) as refusal:
        gate.admit("rating", "1")
    assert refusal.value.code == "model-not-trusted"
    assert len(server.tested) == 1  # what is not trusted is not run


def test_a_refused_version_is_tested_again_only_after_a_while(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    gate = make_gate(models, server)
    server.error = Failed("golden-mismatch", "It differs.")
    for _ in range(2):
        with pytest.raises(Failed, match="It differs"):
            gate.admit("rating", "1")
    assert len(server.tested) == 1
    server.error = None
    monkeypatch.setattr(gate_module, "RECHECK_S", 0.0)
    assert gate.admit("rating", "1").identity.version == "1"


def test_a_server_that_does_not_respond_is_asked_again(models: Path) -> None:
    server = Server()
    gate = make_gate(models, server)
    server.error = Unavailable("triton", "It does not respond.")
    for _ in range(2):
        with pytest.raises(Unavailable):
            gate.admit("severity", "1")
    assert len(server.tested) == 2


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_files_that_are_not_the_described_ones_are_found(models: Path, name: str) -> None:
    model = ModelDescription.read(models, "rating")
    model.check_files()
    (model.folder / name).write_bytes(b"something else")
    with pytest.raises(Failed, match=name) as refusal:
        model.check_files()
    assert refusal.value.code == "model-files-changed"


def test_the_file_for_tensorrt_is_compared_where_it_is_described(models: Path) -> None:
    path = models / "rating" / "1" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fp16_sha256": "0" * 64}))
    with pytest.raises(Failed, match=r"model\.fp16\.onnx.*FileNotFoundError"):
        ModelDescription.read(models, "rating").check_files()
