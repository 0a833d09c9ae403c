"""Agreement between readers, from the CSV files of a site."""

from pathlib import Path

import pytest

from core.errors import ConfigurationError
from training.cli import main
from training.cohorts.reader_agreement import agreement_report
from training.cohorts.site_table import BadRows

HEADER = "subject,inferior_L,inferior_R,middle_L,middle_R,superior_L,superior_R\n"


def _file(path: Path, *rows: str) -> Path:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def test_two_readers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = _file(tmp_path / "a.csv", "s1,0,0,1,2,0,0", "s2,12,15,11,20,30,9", "s3,1,1,1,1,1,1")
    b = _file(tmp_path / "b.csv", "s2,12,15,11,21,30,9", "s1,0,0,1,2,0,0", "s4,1,1,1,1,1,1")
    assert main(["agreement", str(a), str(b)]) == 0
    report = capsys.readouterr().out
    assert "2 readers on 2 subjects, 12 images" in report
    (image,) = [line for line in report.splitlines() if line.startswith("| rating, image")]
    assert "0.917 (0.615–0.998)" in image  # 20 and 21 are two ratings: 11 of 12 the same
    assert "| count, image | 1.000 (" in report
    assert "s1" not in report


def test_identical_readings_agree(tmp_path: Path) -> None:
    a = _file(tmp_path / "a.csv", "s1,0,0,1,2,0,0", "s2,12,15,11,20,30,9")
    assert "| rating, image | 1.000 (1.000–1.000) | 1.000 (" in agreement_report([a, a])


def test_invalid_rows_are_reported_with_their_line(tmp_path: Path) -> None:
    a = _file(tmp_path / "a.csv", "s1,0,0,1,2,0,0", "s2,12,15,x,20,30,9")
    with pytest.raises(BadRows, match="line 3: middle_L is 'x'"):
        agreement_report([a, a])


def test_too_few_readers_or_subjects(tmp_path: Path) -> None:
    a, b = (_file(tmp_path / f"{n}.csv", f"{n},0,0,1,2,0,0") for n in "ab")
    with pytest.raises(ConfigurationError, match="0 subjects in common"):
        agreement_report([a, b])
    with pytest.raises(ConfigurationError, match="two readers"):
        agreement_report([a])
