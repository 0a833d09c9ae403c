"""A severity model from training to evaluation, through the command line."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from training.cli import main
from training.cohorts.examples import Example
from training.cohorts.folder import store_example, write_description
from training.release.evaluate import session

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = (0, 40, 0, 40, 2, 8, 0, 30, 1, 50, 9, 12)


def _write_cohort(folder: Path, seed: int, size: int) -> Path:
    """Write volumes in which EPVS are bright blocks in the middle."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    write_description(
        folder, {"kind": "synthetic", "seed": seed, "scans": 1, "conditions": "standard"}
    )
    for number, count in enumerate(COUNTS):
        volume = np.zeros((16, size, size), dtype=np.uint8)
        for _ in range(count):
            row, column = rng.integers(size // 2 - 20, size // 2 + 20, 2)
            volume[6:10, row : row + 3, column : column + 3] = 255
        example = Example(np.zeros((6, 112, 86), np.uint16), np.full(6, count // 2), volume, count)
        store_example(folder / f"{number:05d}.npz", example)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training run of one epoch."""
    cohort = _write_cohort(tmp_path / "training", 0, 64)
    command = ["train", "severity", "--cohort", str(cohort), "--run", str(tmp_path / "run")]
    options = ["--layers", "18", "--width", "4", "--window", "64", "--epochs", "1"]
    assert main([*command, *options]) == 0
    return tmp_path / "run"


def test_an_exported_model_is_described_and_evaluated(run: Path, tmp_path: Path) -> None:
    held_out, models = _write_cohort(tmp_path / "held-out", 1, 512), tmp_path / "models"
    export = ["export", "severity", "--run", str(run), "--models", str(models)]
    assert main([*export, "--cohort", str(tmp_path / "training")]) == 1  # its own training data
    assert main([*export, "--cohort", str(held_out)]) == 0
    folder = models / "severity" / "1"
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert described["version"] == "1"
    assert described["architecture"]["layers"] == 18
    card = (folder / "MODEL.md").read_text(encoding="utf-8")
    assert described["intended_use"] in card
    assert "18 layers" in card

    fp16 = (folder / "model.fp16.onnx").read_bytes()
    assert described["fp16_sha256"] == hashlib.sha256(fp16).hexdigest()
    assert {layer["reason"] for layer in described["fp32_layers"]} >= {"output"}
    fp32_size = (folder / "model.onnx").stat().st_size
    assert len(fp16) < 0.6 * fp32_size  # the weights are FP16
    (folder / "model.fp16.onnx").unlink()
    assert main(["fp16", "severity", "--cohort", str(held_out), "--models", str(models)]) == 0
    assert (folder / "model.fp16.onnx").read_bytes() == fp16
    assert json.loads((folder / "model.json").read_text(encoding="utf-8")) == described
    missing = ["fp16", "rating", "--cohort", str(held_out), "--models", str(models)]
    assert main(missing) == 1

    golden = np.load(folder / "golden.npz")
    volume = golden["volume"].astype(np.float32) / 255
    (probability,) = session(folder / "model.onnx").run(["probability"], {"volume": volume})
    assert np.allclose(probability, golden["probability"], atol=1e-5)

    out = tmp_path / "scores.json"
    evaluate = ["evaluate", "--cohort", str(held_out), "--models", str(models)]
    assert main([*evaluate, "--only", "severity", "--out", str(out)]) == 0
    scores = json.loads(out.read_text(encoding="utf-8"))
    assert scores["severity"]["auc"] == described["metrics"]["auc"]
    assert np.sum(scores["severity"]["confusion"]) == len(COUNTS)
