"""Training runs: resuming, the best epoch, and other plans and cohorts, which are rejected."""

from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import ConfigurationError
from training import checkpoints
from training.runs import TrainingRun

SYNTHETIC = {"kind": "synthetic", "seed": 1}
SITE = {"kind": "site", "csv_sha256": "a"}


class CountingTrainer:
    """Counts epochs instead of training."""

    def __init__(self) -> None:
        self.trained = 0

    def state(self) -> dict[str, Any]:
        return {"trained": self.trained}

    def load_state(self, state: dict[str, Any]) -> None:
        self.trained = state["trained"]


def _train(
    folder: Path, scores: list[float | None], cohort: dict[str, Any] = SYNTHETIC, **plan: Any
) -> TrainingRun:
    trainer = CountingTrainer()
    fields = {"epochs": len(scores), "loss": "cross-entropy", "window": 512} | plan
    run = TrainingRun(folder, trainer, fields, cohort)
    for epoch in run.epochs():
        trainer.trained += 1
        weights = {"of_epoch": torch.tensor(epoch)}
        run.finish_epoch(epoch, scores[epoch], lambda w=weights: w, {"loss": 0.12345})  # type: ignore[misc]
    return run


def test_the_best_epoch_is_kept_across_an_interruption(tmp_path: Path) -> None:
    _train(tmp_path, [0.5, 0.9])
    run = _train(tmp_path, [0.5, 0.9, 0.7])
    state = checkpoints.require(tmp_path)
    assert (state["epoch"], state["trained"], state["best"]) == (3, 3, 0.9)
    assert run.best_weights == {"of_epoch": 1}
    log = (tmp_path / "log.jsonl").read_text().splitlines()
    assert log == [f'{{"epoch": {epoch}, "loss": 0.1235}}' for epoch in range(3)]


def test_without_validation_scores_the_last_epoch_is_kept(tmp_path: Path) -> None:
    assert _train(tmp_path, [None, None]).best_weights == {"of_epoch": 1}


def test_another_plan_or_another_cohort_of_a_site_is_rejected(tmp_path: Path) -> None:
    _train(tmp_path, [0.5])
    with pytest.raises(ConfigurationError, match="different loss, window"):
        _train(tmp_path, [0.5], loss="mse", window=224)
    _train(tmp_path, [0.5], SYNTHETIC | {"scans": 9})  # a synthetic cohort may grow
    with pytest.raises(ConfigurationError, match="another cohort"):
        _train(tmp_path, [0.5], SITE)


def test_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no checkpoint"):
        checkpoints.require(tmp_path)
