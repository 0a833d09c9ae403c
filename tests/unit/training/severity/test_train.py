"""Training of the severity model in two phases."""

from pathlib import Path

import numpy as np
import torch

from training.cohorts.examples import Example
from training.cohorts.folder import store_example
from training.severity.recipe import SeverityPlan
from training.severity.train import train_severity


def _cohort(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    (folder / "cohort.json").write_text('{"kind": "test", "seed": 0, "enhancement": "none"}')
    for number in range(23):
        count = 0 if number % 2 else 40
        volume = np.zeros((16, 64, 64), dtype=np.uint8)
        for _ in range(count):
            row, column = rng.integers(8, 56, 2)
            volume[6:10, row : row + 3, column : column + 3] = 255
        crops = np.zeros((6, 112, 86), dtype=np.uint16)
        example = Example(crops, np.zeros(6, dtype=np.int64), volume, count)
        store_example(folder / f"{number:05d}.npz", example)


def test_second_phase_starts_from_the_best_weights_of_the_first(tmp_path: Path) -> None:
    _cohort(tmp_path / "cohort")
    central = SeverityPlan(layers=18, width=4, window=48, epochs=4, batch=7, rate=3e-3)
    whole = SeverityPlan(layers=18, width=4, window=64, epochs=1, rate=1e-5)
    train_severity(tmp_path / "cohort", tmp_path / "first", central)
    train_severity(tmp_path / "cohort", tmp_path / "second", whole, start_from=tmp_path / "first")
    first, second = (
        torch.load(tmp_path / run / "checkpoint.pt", weights_only=True)
        for run in ("first", "second")
    )
    assert first["best"] == 1.0
    assert [phase["window"] for phase in second["phases"]] == [48, 64]
    moved = second["net"]["score.weight"] - first["best_weights"]["score.weight"]
    assert 0 < float(moved.abs().max()) < 1e-3
