"""Synthetic DICOM cohort: what it writes can be read as a site's cohort.

This is an integration test because it generates and registers a whole scan.
"""

from pathlib import Path
from typing import Any

import pytest

from training.cli import main
from training.cohorts import dicom_export
from training.cohorts.folder import describe_cohort, load_cohort
from training.cohorts.site_table import read_table
from training.synthetic.subjects import make_subject


def test_exported_cohort_is_read_as_a_sites_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_some_epvs(seed: int, number: int, conditions: Any) -> Any:
        return make_subject(seed, number + 2, "rating-paper", conditions)

    monkeypatch.setattr(dicom_export, "make_subject", with_some_epvs)
    monkeypatch.chdir(tmp_path)
    assert main(["dicom-cohort", "--out", "dicom", "--seed", "12", "--count", "1"]) == 0
    table = read_table(tmp_path / "dicom" / "readings.csv")
    assert not table.problems
    (row,) = table.rows
    assert row.subject == "12-00000"
    assert 0 < max(row.counts) <= (row.severity_count or 0)

    assert main(["cohort-from-csv", "dicom/readings.csv", "--out", "cohort"]) == 0
    assert describe_cohort(tmp_path / "cohort")["labels"] == "counts"
    (example,) = load_cohort(tmp_path / "cohort")
    assert tuple(example.counts.tolist()) == row.counts
