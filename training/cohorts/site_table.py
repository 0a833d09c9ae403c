"""Reads the CSV file of a site's cohort: valid rows, and what is wrong with the others.

Columns (``docs/training.md``): ``subject``, ``path``, six labels, optionally ``severity_count``.
Only the table is checked here; the scans are checked when they are read.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.errors import EpvsError
from core.results import Level, Side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IMAGES: Final = tuple(f"{level.value}_{side.value}" for level in Level for side in Side)
"""Columns of counts, in the order of `RatingInput.placements`."""
GRADES: Final = tuple(f"{image}_grade" for image in IMAGES)
LEAST_COUNT: Final = (0, 1, 11, 21, 41)
"""Lowest count of each grade (rating paper, Table 2), used where readers gave grades."""
MAX_COUNT: Final = 500
SEVERITY: Final = "severity_count"


@dataclass(frozen=True, slots=True)
class Row:
    """A valid row: one subject of the cohort.

    Attributes
    ----------
    line : int
        Line in the CSV file; the header is line 1.
    subject : str
    path : Path
    counts : tuple of int
        EPVS in each of the six images, or the lowest count of its grade.
    severity_count : int, optional
        EPVS in the slice and hemisphere with most of them.
    """

    line: int
    subject: str
    path: Path
    counts: tuple[int, ...]
    severity_count: int | None


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """A fault in one line of the file."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Table:
    """Content of a CSV file; `labels` is ``"counts"`` or ``"grades"``."""

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    labels: str


class BadRows(EpvsError):
    """Some rows of the CSV file are invalid; the message lists all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        listed = "".join(f"\n  {problem}" for problem in sorted(problems))
        super().__init__(
            f"The CSV file has invalid rows; nothing was trained or written:{listed}\n",
            "Correct these rows, or leave them out with --skip-bad-rows, where the command has it.",
        )
        self.problems = tuple(sorted(problems))


def read_table(file: Path, *, scans: bool = True) -> Table:
    """Read a cohort's CSV file: UTF-8, comma-separated, with a header; other columns are ignored.

    Parameters
    ----------
    file : Path
    scans : bool
        Whether to check the column ``path``, which is optional if only the readings are needed.

    Raises
    ------
    BadRows
        The file or its header is invalid, so that no row can be read.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            labels = _labels(reader.fieldnames or (), scans=scans)
            lines = [(reader.line_num, fields) for fields in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadRows(
            [Problem(1, f"the file cannot be read as UTF-8 CSV ({type(error).__name__})")]
        ) from error
    rows: list[Row] = []
    problems: list[Problem] = []
    subjects: dict[str, int] = {}
    paths: dict[Path, int] = {}
    for line, fields in lines:
        found: list[str] = []
        row = _row(line, fields, labels, file.parent if scans else None, found)
        if row.subject and (first := subjects.setdefault(row.subject, line)) != line:
            found.append(f"duplicate subject, already in line {first}")
        if (
            scans
            and row.path.exists()
            and (first := paths.setdefault(row.path.resolve(), line)) != line
        ):
            found.append(f"the same scan as line {first}")
        problems.extend(Problem(line, reason) for reason in found)
        if not found:
            rows.append(row)
    return Table(tuple(rows), tuple(problems), labels)


def _labels(header: Sequence[str], *, scans: bool) -> str:
    """Return which labels the columns hold: ``"counts"`` or ``"grades"``."""
    needed = ("subject", "path") if scans else ("subject",)
    problems = [f"missing column {name}" for name in needed if name not in header]
    repeated = sorted({name for name in header if header.count(name) > 1})
    problems += [f"column {name} appears twice" for name in repeated]
    kinds = [kind for kind in (IMAGES, GRADES) if set(kind) & set(header)]
    if len(kinds) == 2:
        problems.append("counts and grades in one file: keep one of them")
    else:
        expected = kinds[0] if kinds else IMAGES
        hint = "" if kinds else " (or the same name with _grade)"
        problems += [f"missing column {name}{hint}" for name in expected if name not in header]
    if problems:
        raise BadRows([Problem(1, problem) for problem in problems])
    return "grades" if kinds[0] is GRADES else "counts"


def _row(
    line: int,
    fields: Mapping[str | None, str | None],
    labels: str,
    folder: Path | None,
    found: list[str],
) -> Row:
    """Parse one row and append its faults to `found`; paths are relative to `folder`."""
    if None in fields:
        found.append("more fields than columns")
    text = {str(name): str(value or "").strip() for name, value in fields.items()}
    if not text["subject"]:
        found.append("subject is empty")
    path = (folder or Path()).absolute() / (text.get("path") or "(empty)")
    if folder is not None and not path.exists():
        found.append("path does not exist" if text["path"] else "path is empty")
    names, most = (GRADES, 4) if labels == "grades" else (IMAGES, MAX_COUNT)
    values = [_number(text[name], name, most, found) for name in names]
    counts = tuple(LEAST_COUNT[v] if labels == "grades" else v for v in values)
    severity = None
    if text.get(SEVERITY):
        severity = _number(text[SEVERITY], SEVERITY, MAX_COUNT, found)
        if not found and severity < max(counts):
            found.append(
                f"{SEVERITY} {severity} is below the highest count of an image, {max(counts)}"
            )
    return Row(line, text["subject"], path, counts, severity)


def _number(text: str, name: str, most: int, found: list[str]) -> int:
    if text.isascii() and text.isdigit() and int(text[:9]) <= most and len(text) < 10:
        return int(text)
    found.append(f"{name} is {text[:20]!r}, not a whole number from 0 to {most}")
    return 0
