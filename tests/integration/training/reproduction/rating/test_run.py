"""The reproduction from the pool to the report, on a small pool of made-up crops."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigurationError
from tests.support.builders.dots import dots
from training.cohorts.examples import Example, store_example
from training.reproduction.rating import (
    cross_validation,
    enhancement,
    forest,
    plots,
    results,
    subjects,
)
from training.reproduction.rating.results import gather
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
    """A pool that needs no phantom: 12 heads, two scans each; 10 of them are to be chosen."""
    rng = np.random.default_rng(0)
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "cohort.json").write_text(json.dumps({"kind": "synthetic", **asdict(subjects.POOL)}))
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
    monkeypatch.setattr(cross_validation, "PUBLISHED_EPOCHS", 1)
    monkeypatch.setattr(forest, "TREES", 20)
    monkeypatch.setattr(subjects, "IMAGES_OF_RATING", (30, 0, 0, 30, 0))
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
    for name in ("draw_examples", "draw_arms"):
        monkeypatch.setattr(plots, name, lambda target, *_: drawn.append(target.name))
    report = work / "report" / "rating.md"
    lines = list(reproduce_rating(work, report, epochs=1, seeds=1))
    assert len(lines) == FOLDS * 7 + 1
    text = report.read_text(encoding="utf-8")
    assert "Not for clinical use" in text
    assert "| images, paper (Table 2) | 30 | 0 | 0 | 30 | 0 |" in text
    assert "nan" not in text
    assert sorted(drawn) == ["rating-accuracy.png", "rating-cohort.png"]
    assert (report.parent / "rating-confusion.png").stat().st_size > 1000
    assert (report.parent / "rating-errors.png").stat().st_size > 1000

    # The next run has nothing left to train, and says the same.
    assert list(reproduce_rating(work, report, epochs=1, seeds=1)) == [f"wrote {report}"]
    assert report.read_text(encoding="utf-8") == text

    served = gather(work, cross_validation.arms(1, 1)[0])
    assert served.held_out.shape == (1, 10, 6, 5)
    assert np.allclose(served.held_out.sum(axis=-1), 1, atol=1e-5)  # everyone answered, once
    assert served.test["image"].shape == (FOLDS,)


def test_a_report_is_not_written_over_missing_folds(work: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"stationary-0-0\.npz is missing"):
        gather(work, cross_validation.arms(1, 1)[0])
