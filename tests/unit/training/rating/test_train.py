"""Training of the rating model: resuming, calibration, and cohorts without validation subjects."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tests.support.builders.dots import dots
from training.cohorts.examples import Example
from training.cohorts.folder import store_example
from training.rating.recipe import RatingPlan
from training.rating.train import train_rating

PLAN = RatingPlan(epochs=2, enhancement="none")


def _cohort(folder: Path, subjects: int) -> None:
    rng = np.random.default_rng(0)
    counts = np.array([0, 5, 15, 30, 60, 0])
    folder.mkdir()
    (folder / "cohort.json").write_text('{"kind": "test", "seed": 0}')
    for number in range(subjects):
        crops = np.stack([dots(int(c), rng) for c in counts])
        volume = np.zeros((16, 2, 2), dtype=np.uint8)
        store_example(folder / f"{number:05d}.npz", Example(crops, counts, volume, 60))


def test_an_interrupted_run_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    _cohort(tmp_path / "cohort", 12)
    train_rating(tmp_path / "cohort", tmp_path / "run", replace(PLAN, epochs=1))
    train_rating(tmp_path / "cohort", tmp_path / "run", PLAN)
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ['{"epoch": 0', '{"epoch": 1']
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 2
    assert state["optimiser"]["state"][0]["step"] == 2 * -(-11 * 6 // 32)
    assert 0.05 < state["best_weights"]["temperature"] != 1.0


def test_without_validation_subjects_the_last_epoch_is_kept_uncalibrated(tmp_path: Path) -> None:
    _cohort(tmp_path / "cohort", 3)
    net = train_rating(tmp_path / "cohort", tmp_path / "run", PLAN)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state["net"][name])
