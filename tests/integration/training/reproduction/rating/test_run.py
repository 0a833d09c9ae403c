"""Rating reproduction from the pool to the report, on a small pool of artificial crops.

This is an integration test because it trains seven configurations.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigurationError
from tests.support.builders.dots import dots
from training.cohorts.examples import Example
from training.cohorts.folder import store_example, write_description
from training.reproduction.rating import (
    cross_validation,
    enhancement,
    forest,
    plots,
    report,
    results,
    subjects,
)
from training.reproduction.rating.configurations import configurations
from training.reproduction.rating.results import load_results
from training.reproduction.rating.run import reproduce_rating
from worker.grading.stages.rating.haar import ENHANCEMENTS

LOADS = (0, 30)
FOLDS = 2
FACTS = {
    "protocol": "rating-paper",
    "noise": 0.02,
    "motion_mm": 0.0,
    "sampled": 0.8,
    "bias": 0.2,
    "registration_error_mm": 1.0,
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool of artificial crops: 12 heads with two scans each, 10 of which are selected."""
    rng = np.random.default_rng(0)
    pool = tmp_path / "pool"
    pool.mkdir()
    write_description(pool, {"kind": "synthetic", **asdict(subjects.POOL)})
    for head in range(12):
        for scan in range(2):
            counts = np.full(6, LOADS[(head + scan) % 2])
            crops = np.stack([dots(int(c), rng) for c in counts])
            example = Example(crops, counts, np.empty((0, 0, 0), np.uint8), 0, facts=FACTS)
            store_example(pool / f"{head:05d}-{scan}.npz", example)
    monkeypatch.setattr(subjects, "_HEADS", 0)
    monkeypatch.setattr(subjects, "SUBJECTS", 10)
    for module in (cross_validation, results):
        monkeypatch.setattr(module, "FOLDS", FOLDS)
    monkeypatch.setattr("training.reproduction.rating.configurations.PAPER_EPOCHS", 1)
    monkeypatch.setattr(forest, "TREES", 20)
    for module in (subjects, report):
        monkeypatch.setattr(module, "IMAGES_OF_RATING", (30, 0, 0, 30, 0))
    measured = enhancement.EnhancementFigures(5.0, 4.0, 0.9, 0.1, 2.0)
    (tmp_path / "enhancement.json").write_text(
        json.dumps(
            {
                "figures": {n: asdict(measured) for n in ENHANCEMENTS},
                "epvs": 100,
                "faint": 40,
            }
        )
    )
    return tmp_path


def test_from_pool_to_report(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    for name in ("draw_examples", "draw_accuracy"):
        monkeypatch.setattr(plots, name, lambda target, *_: drawn.append(target.name))
    target = work / "report" / "rating.md"
    lines = list(reproduce_rating(work, target, epochs=1, repetitions=1))
    assert len(lines) == FOLDS * 7 + 1
    text = target.read_text(encoding="utf-8")
    assert "Not for clinical use" in text
    assert "| images, paper (Table 2) | 30 | 0 | 0 | 30 | 0 |" in text
    assert "nan" not in text
    assert sorted(drawn) == ["rating-accuracy.png", "rating-cohort.png"]
    assert (target.parent / "rating-confusion.png").stat().st_size > 1000
    assert (target.parent / "rating-errors.png").stat().st_size > 1000

    # The next run has nothing left to train and writes the same report.
    assert list(reproduce_rating(work, target, epochs=1, repetitions=1)) == [f"wrote {target}"]
    assert target.read_text(encoding="utf-8") == text

    served = load_results(work, configurations(1, 1)[0])
    assert served.held_out.shape == (1, 10, 6, 5)
    assert np.allclose(
        served.held_out.sum(axis=-1), 1, atol=1e-5
    )  # one prediction for each subject
    assert served.test["image"].shape == (FOLDS,)


def test_missing_folds_are_an_error(work: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"stationary-0-0\.npz is missing"):
        load_results(work, configurations(1, 1)[0])
