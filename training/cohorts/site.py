"""A cohort folder made from a site's own scans and readings.

All scans are looked at before anything is said, so that one run names every bad row. Examples that
are done are kept under the digest of row and files: a second run redoes only what has changed.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import ConfigurationError, EpvsError
from core.version import VERSION
from training.cohorts.examples import DESCRIPTION, align, label_inputs, store_example
from training.cohorts.scans import load_scan
from training.cohorts.site_table import BadRows, Problem, Row, read_table
from worker.grading.stages.rating import prepare_rating
from worker.grading.stages.severity import prepare_severity
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from training.cohorts.examples import Example
    from worker.grading.records import Template


def build_site_cohort(file: Path, folder: Path, *, skip_bad_rows: bool = False) -> Iterator[str]:
    """Preprocess and store the subjects of a CSV file.

    Parameters
    ----------
    file : Path
        See `training.cohorts.site_table`.
    folder : Path
        New, or of an earlier run, whose examples are used again. It counts as a cohort only once
        every row has been dealt with.
    skip_bad_rows : bool
        Leave bad rows out instead of refusing the cohort.

    Yields
    ------
    str
        One line a row, for the progress display; at the end one for each row left out.

    Raises
    ------
    BadRows
        All bad rows, with line and reason; or no good row is left.
    """
    table = read_table(file)
    problems = list(table.problems)
    description: dict[str, Any] = {
        "kind": "site",
        "labels": table.labels,
        "csv_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    _begin(folder, description)
    template = load_template()
    kept: dict[str, Row] = {}
    for number, row in enumerate(table.rows, 1):
        progress = f"{number}/{len(table.rows)} line {row.line}"
        target = folder / f"{_key(row)}.npz"
        if not target.exists():
            try:
                example = make_site_example(row, template)
            except EpvsError as error:
                problems.append(Problem(row.line, str(error)))
                yield f"{progress}: {error}"
                continue
            store_example(target, example)
        kept[target.name] = row
        yield f"{progress}: {list(row.counts)}"
    if not kept or (problems and not skip_bad_rows):
        raise BadRows(problems or [Problem(1, "no rows below the header")])
    for path in folder.glob("*.npz"):
        if path.name not in kept:  # of a row that has been changed or taken out since
            path.unlink()
    description |= {
        "complete": True,
        "severity_labels": all(row.severity_count is not None for row in kept.values()),
        "skipped_rows": len({problem.line for problem in problems}),
    }
    _describe(folder, description)
    for problem in sorted(problems):
        yield f"skipped {problem}"


def make_site_example(row: Row, template: Template) -> Example:
    """Preprocess one subject as the node does.

    Raises
    ------
    UnusableScan, NotGradable
        The scan cannot be read, or the node would not grade it.
    """
    volume = load_scan(row.path)
    registration = align(volume, template)
    return label_inputs(
        prepare_rating(volume, registration, enhancement="none"),
        prepare_severity(volume, registration, template),
        counts=np.array(row.counts, dtype=np.int64),
        severity_count=max(row.counts) if row.severity_count is None else row.severity_count,
    )


def _key(row: Row) -> str:
    """Name of a row's example: subject (decides the split), then everything that shapes it."""
    files = sorted(row.path.rglob("*")) if row.path.is_dir() else [row.path]
    content = [
        (path.relative_to(row.path).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    ]
    shaped_by = [VERSION, str(row.path), content, row.counts, row.severity_count]
    return f"{_digest(row.subject)}-{_digest(json.dumps(shaped_by))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _begin(folder: Path, description: dict[str, Any]) -> None:
    """Take a folder for this cohort, but never one that holds something else."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DESCRIPTION
    ours = path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("kind") == "site"
    if not ours and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} holds something else.", "Name a new folder.")
    _describe(folder, description | {"complete": False})


def _describe(folder: Path, description: dict[str, Any]) -> None:
    partial = folder / f"{DESCRIPTION}.part"
    partial.write_text(json.dumps(description) + "\n", encoding="utf-8")
    partial.rename(folder / DESCRIPTION)
