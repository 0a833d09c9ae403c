"""Builds a cohort folder from a site's own scans and readings.

All scans are processed before any error is raised, so that one run reports every invalid row.
Finished examples are stored under a digest of row and files: the next run processes only what has
changed.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import ConfigurationError, EpvsError
from core.version import VERSION
from training.cohorts.examples import label_inputs, register_scan
from training.cohorts.folder import read_description, store_example, write_description
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
    """Preprocess and store the subjects that a CSV file lists.

    Parameters
    ----------
    file : Path
        CSV file; see `training.cohorts.site_table`.
    folder : Path
        A new folder, or that of an earlier run, whose examples are reused. It is marked complete
        once every row has been processed.
    skip_bad_rows : bool
        Leave invalid rows out instead of rejecting the whole cohort.

    Yields
    ------
    str
        One line per row, for the progress display; at the end one for each row left out.

    Raises
    ------
    BadRows
        Some rows are invalid, or no valid row is left; the message lists line and reason.
    """
    table = read_table(file)
    problems = list(table.problems)
    description: dict[str, Any] = {
        "kind": "site",
        "labels": table.labels,
        "csv_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    _start(folder, description)
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
        if path.name not in kept:  # its row has since been changed or removed
            path.unlink()
    description |= {
        "complete": True,
        "severity_labels": all(row.severity_count is not None for row in kept.values()),
        "skipped_rows": len({problem.line for problem in problems}),
    }
    write_description(folder, description)
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
    registration = register_scan(volume, template)
    return label_inputs(
        prepare_rating(volume, registration, enhancement="none"),
        prepare_severity(volume, registration, template),
        counts=np.array(row.counts, dtype=np.int64),
        severity_count=max(row.counts) if row.severity_count is None else row.severity_count,
    )


def _key(row: Row) -> str:
    """File name of a row's example: digests of the subject, and of all that the example depends on.

    The subject comes first because it decides the split.
    """
    files = sorted(row.path.rglob("*")) if row.path.is_dir() else [row.path]
    content = [
        (path.relative_to(row.path).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    ]
    depends_on = [VERSION, str(row.path), content, row.counts, row.severity_count]
    return f"{_digest(row.subject)}-{_digest(json.dumps(depends_on))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _start(folder: Path, description: dict[str, Any]) -> None:
    """Mark the folder as an incomplete cohort, unless it is in use for something else."""
    folder.mkdir(parents=True, exist_ok=True)
    found = read_description(folder)
    if any(folder.iterdir()) and (found is None or found.get("kind") != "site"):
        raise ConfigurationError(
            f"{folder} is not empty and holds no cohort of a site.", "Name a new folder."
        )
    write_description(folder, description | {"complete": False})
