"""CSV file of a site's cohort: valid rows are parsed, and every fault is reported with its line."""

import csv
from pathlib import Path

import pytest

from training.cohorts.site_table import GRADES, IMAGES, BadRows, read_table

COUNTS = (0, 3, 12, 5, 30, 44)
HEADER = ("subject", "path", *IMAGES, "severity_count")


def _write(folder: Path, header: tuple[str, ...], *rows: tuple[object, ...]) -> Path:
    file = folder / "readings.csv"
    with file.open("w", newline="", encoding="utf-8") as text:
        csv.writer(text).writerows([header, *rows])
    for name in "abcde":
        (folder / f"{name}.nii").touch()
    return file


def test_counts_and_grades(tmp_path: Path) -> None:
    table = read_table(_write(tmp_path, HEADER, ("a", "a.nii", *COUNTS, 60)))
    assert (table.labels, table.problems) == ("counts", ())
    (row,) = table.rows
    assert (row.line, row.subject, row.counts, row.severity_count) == (2, "a", COUNTS, 60)
    assert row.path == tmp_path / "a.nii"

    header = ("subject", "path", *GRADES)
    table = read_table(_write(tmp_path, header, ("a", "a.nii", 0, 1, 2, 3, 4, 0)))
    assert table.labels == "grades"
    assert table.rows[0].counts == (0, 1, 11, 21, 41, 0)
    assert table.rows[0].severity_count is None


def test_every_fault_is_reported_with_its_line(tmp_path: Path) -> None:
    table = read_table(
        _write(
            tmp_path,
            HEADER,
            ("a", "a.nii", *COUNTS, 44),
            ("a", "b.nii", *COUNTS, 60),
            ("c", "nowhere", *COUNTS, 60),
            ("f", "", 0, "", -1, "3.5", 0, 999, 60),
            ("g", "c.nii", *COUNTS, 7),
            ("", "d.nii", *COUNTS, 60),
            ("i", "a.nii", *COUNTS, 60),
            ("j", "e.nii", *COUNTS, 60, "extra"),
        )
    )
    whole_number = "not a whole number from 0 to 500"
    assert [(problem.line, problem.reason) for problem in table.problems] == [
        (3, "duplicate subject, already in line 2"),
        (4, "path does not exist"),
        (5, "path is empty"),
        (5, f"inferior_R is '', {whole_number}"),
        (5, f"middle_L is '-1', {whole_number}"),
        (5, f"middle_R is '3.5', {whole_number}"),
        (5, f"superior_R is '999', {whole_number}"),
        (6, "severity_count 7 is below the highest count of an image, 44"),
        (7, "subject is empty"),
        (8, "the same scan as line 2"),
        (9, "more fields than columns"),
    ]
    assert [row.line for row in table.rows] == [2]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("subject", *IMAGES[1:]), r"(?s)missing column inferior_L.*missing column path"),
        (("subject", "path"), "missing column inferior_L .or the same name with _grade."),
        (("subject", "path", *IMAGES, *GRADES), "counts and grades"),
        (("subject", "subject", "path", *IMAGES), "subject appears twice"),
    ],
)
def test_invalid_headers(header: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadRows, match=message):
        read_table(_write(tmp_path, header))


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "readings.csv").write_bytes(b"subject,path\n\xff\xfe\n")
    with pytest.raises(BadRows, match="UTF-8"):
        read_table(tmp_path / "readings.csv")
