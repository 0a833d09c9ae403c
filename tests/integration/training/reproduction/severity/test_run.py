"""Severity reproduction from the pool to the report, on small artificial volumes.

This is an integration test because it trains six networks.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigurationError
from training.cohorts.examples import Example
from training.cohorts.folder import store_example, write_description
from training.reproduction.severity import designs, robustness
from training.reproduction.severity import jobs as severity_jobs
from training.reproduction.severity import subjects as severity_subjects
from training.reproduction.severity.run import reproduce_severity
from training.reproduction.severity.subjects import split_subjects

FOLDS = 2
BUDGET = designs.Budget(width=2, epochs=2, whole_epochs=1, window=48)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool of artificial volumes: 40 heads whose EPVS are squares of one size."""
    rng = np.random.default_rng(0)
    pool = tmp_path / "pool"
    pool.mkdir()
    write_description(pool, {"kind": "synthetic", **asdict(severity_subjects.POOL)})
    for head in range(40):
        count = 40 if head % 5 < 2 else 0
        volume = np.zeros((16, 64, 64), dtype=np.uint8)
        regions = np.zeros((3, 16, 8, 8), dtype=np.float16)
        regions[0], regions[1, :, 3:5, 3:5] = 1, 1
        for row, column in rng.integers(10, 50, (count, 2)):
            volume[6:10, row : row + 3, column : column + 3] = 255
            regions[2, 8, row // 8, column // 8] += 1
        example = Example(
            crops=np.zeros((6, 112, 86), dtype=np.uint16),
            counts=np.zeros(6, dtype=np.int64),
            volume=volume,
            severity_count=count,
            ground_truth=regions,
            facts={"registration_error_mm": 1.0},
        )
        store_example(pool / f"{head:05d}-0.npz", example)
    for name, value in (("_HEADS", 0), ("MILD", 22), ("SEVERE", 14)):
        monkeypatch.setattr(severity_subjects, name, value)
    monkeypatch.setattr(severity_jobs, "FOLDS", FOLDS)
    for name, small in (("DEPTH", 18), ("DEPTHS", (18,)), ("DROPOUTS", (0.4, 0.0)), ("WHOLE", 64)):
        monkeypatch.setattr(designs, name, small)
    monkeypatch.setattr("training.reproduction.severity.run.WHOLE", 64)
    for name in ("_SAMPLES", "_POOL"):
        monkeypatch.setattr(robustness, name, 1)
    return tmp_path


def test_from_pool_to_report(work: Path) -> None:
    report = work / "report" / "severity.md"
    lines = list(reproduce_severity(work, report, BUDGET))
    tested = len(split_subjects(np.arange(36) < 14).test)
    assert len(lines) == 2 * FOLDS + 2 + tested + 1
    text = report.read_text(encoding="utf-8")
    assert "Not for clinical use" in text
    assert "36 subjects, 22 none-to-mild and 14 moderate-to-severe" in text
    assert text.count("(chosen)") == 1
    assert "nan" not in text
    for name in ("test", "designs", "saliency"):
        assert (report.parent / f"severity-{name}.png").stat().st_size > 1000

    # The next run has nothing left to train and writes the same report.
    assert list(reproduce_severity(work, report, BUDGET)) == [f"wrote {report}"]
    assert report.read_text(encoding="utf-8") == text


def test_pool_with_too_few_subjects_of_a_class(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(severity_subjects, "SEVERE", 17)
    with pytest.raises(ConfigurationError, match="16 severe subjects"):
        list(reproduce_severity(work, work / "severity.md", BUDGET))
