"""Synthetic DICOM cohort: what it writes, the door of a site's own cohort takes."""

from pathlib import Path

import pytest

from training.cli import main
from training.datasets import describe_cohort, load_cohort
from training.tables import read_table


def test_written_and_read_back_as_a_sites_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dicom-cohort", "--out", "dicom", "--seed", "12", "--count", "2"]) == 0
    table = read_table(tmp_path / "dicom" / "readings.csv")
    assert not table.problems
    assert [row.subject for row in table.rows] == ["12-00000", "12-00001"]
    assert table.rows[0].counts == (0,) * 6  # heads cycle through the loads from none on
    assert table.rows[1].severity_count
    assert table.rows[1].severity_count >= max(table.rows[1].counts)

    assert main(["cohort-from-csv", "dicom/readings.csv", "--out", "cohort"]) == 0
    assert describe_cohort(tmp_path / "cohort")["labels"] == "counts"
    assert {tuple(e.counts.tolist()) for e in load_cohort(tmp_path / "cohort")} == {
        row.counts for row in table.rows
    }
