"""A site's cohort as a CSV file → rows that can be used, and what is wrong with the others.

Columns (``docs/training.md``): ``subject``, ``path``, six labels, optionally ``severity_count``.
Only the table is read here; whether the scans are what they should be is found out later.
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
"""Fewest EPVS of each grade (rating paper, Table 2): what stands for a grade without a count."""
MAX_COUNT: Final = 500
SEVERITY: Final = "severity_count"


@dataclass(frozen=True, slots=True)
class Row:
    """One subject of a cohort.

    Attributes
    ----------
    line : int
        In the CSV file; the header is line 1.
    subject : str
    path : Path
    counts : tuple of int
        Of the six images, or the least count of each one's grade.
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
    """What is wrong with one line."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file as read: `labels` is ``"counts"`` or ``"grades"``."""

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    labels: str


class BadRows(EpvsError):
    """Lines of the cohort that cannot be used; the message lists all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        listed = "".join(f"\n  {problem}" for problem in sorted(problems))
        super().__init__(
            f"The readings cannot be used as they are; nothing was trained or written:{listed}\n",
            "Correct these lines; where a command has --skip-bad-rows, it leaves them out.",
        )
        self.problems = tuple(sorted(problems))


def read_table(file: Path, *, scans: bool = True) -> Table:
    """Read a cohort's CSV file: UTF-8, commas, a header line; other columns are ignored.

    Parameters
    ----------
    file : Path
    scans : bool
        Whether the scans are wanted; otherwise only readings are, and ``path`` is not looked at.

    Raises
    ------
    BadRows
        The file or its header cannot be used, so that no row can be read.
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
    """Whether the header promises counts or grades."""
    needed = ("subject", "path") if scans else ("subject",)
    problems = [f"missing column {name}" for name in needed if name not in header]
    repeated = sorted({name for name in header if header.count(name) > 1})
    problems += [f"column {name} appears twice" for name in repeated]
    kinds = [kind for kind in (IMAGES, GRADES) if set(kind) & set(header)]
    if len(kinds) == 2:
        problems.append("counts and grades in one file: keep either")
    else:
        expected = kinds[0] if kinds else IMAGES
        hint = "" if kinds else " (or the same with _grade)"
        problems += [f"missing column {name}{hint}" for name in expected if name not in header]
    if problems:
        raise BadRows([Problem(1, problem) for problem in problems])
    return "grades" if kinds[0] is GRADES else "counts"


def _row(
    line: int,
    fields: Mapping[str | None, str | None],
    labels: str,
    beside: Path | None,
    found: list[str],
) -> Row:
    """Read one line; what is wrong with it goes to `found`. Paths are relative to `beside`."""
    if None in fields:
        found.append("more fields than columns")
    text = {str(name): str(value or "").strip() for name, value in fields.items()}
    if not text["subject"]:
        found.append("subject is empty")
    path = (beside or Path()).absolute() / (text.get("path") or "(empty)")
    if beside is not None and not path.exists():
        found.append("path does not exist" if text["path"] else "path is empty")
    names, most = (GRADES, 4) if labels == "grades" else (IMAGES, MAX_COUNT)
    values = [_number(text[name], name, most, found) for name in names]
    counts = tuple(LEAST_COUNT[v] if labels == "grades" else v for v in values)
    severity = None
    if text.get(SEVERITY):
        severity = _number(text[SEVERITY], SEVERITY, MAX_COUNT, found)
        if not found and severity < max(counts):
            found.append(f"{SEVERITY} {severity} is below the fullest image, {max(counts)}")
    return Row(line, text["subject"], path, counts, severity)


def _number(text: str, name: str, most: int, found: list[str]) -> int:
    if text.isascii() and text.isdigit() and int(text[:9]) <= most and len(text) < 10:
        return int(text)
    found.append(f"{name} is {text[:20]!r}, not a whole number from 0 to {most}")
    return 0
