"""Agreement between readers, computed from one CSV file of readings per reader.

Rating paper, section 2.3: intraclass correlation of two readers. The files have the columns of
`training.cohorts.site_table`, except that ``path`` is optional; subjects are matched by name. The
node's own ratings can take the place of a reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import cohen_kappa_score

from core.errors import ConfigurationError
from training.cohorts.examples import rating_of
from training.cohorts.site_table import BadRows, read_table
from training.statistics import ac2, icc, proportion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.statistics import Interval


def agreement_report(files: Sequence[Path]) -> str:
    """Compare the readings of the subjects that all files have in common.

    Parameters
    ----------
    files : sequence of Path
        One per reader, at least two.

    Returns
    -------
    str
        Markdown, without the names of the subjects.

    Raises
    ------
    BadRows
        A file is unreadable or has invalid rows; the message lists line and reason.
    ConfigurationError
        Fewer than two files, or fewer than two subjects in common.
    """
    if len(files) < 2:
        raise ConfigurationError(
            "Agreement needs at least two readers.", "Give one CSV file per reader."
        )
    counts, common, any_grades = _match(files)
    ratings = rating_of(counts)
    images, subjects = ratings.reshape(len(files), -1), ratings.max(axis=2)
    rows = [
        _row("rating, image", images),
        _row("rating, subject (highest of six)", subjects),
    ]
    if not any_grades:
        rows += [
            f"| count, image | {_icc(counts.reshape(len(files), -1))} | – | – | – |",
            f"| count, subject (fullest image) | {_icc(counts.max(axis=2))} | – | – | – |",
        ]
    newline = "\n"
    return f"""\
Agreement of {len(files)} readers on {common} subjects, {images.shape[1]} images.
ICC(2,1): absolute agreement of a single reader. Intervals are 95 % confidence intervals.

| | ICC(2,1) | same rating | weighted kappa | Gwet's AC2 |
|---|---|---|---|---|
{newline.join(rows)}
"""


def _match(files: Sequence[Path]) -> tuple[NDArray[np.int64], int, bool]:
    """Return counts (readers, subjects, 6), number of subjects, and whether any file has grades."""
    tables = [read_table(file, scans=False) for file in files]
    for table in tables:
        if table.problems:
            raise BadRows(table.problems)
    readings = [{row.subject: row.counts for row in table.rows} for table in tables]
    common = sorted(set.intersection(*(set(reading) for reading in readings)))
    if len(common) < 2:
        raise ConfigurationError(
            f"The files have {len(common)} subjects in common.",
            "Use the same subject names in every file.",
        )
    counts = np.array([[reading[name] for name in common] for reading in readings])
    return counts, len(common), any(table.labels == "grades" for table in tables)


def _row(name: str, ratings: NDArray[np.int64]) -> str:
    same = int((ratings == ratings[0]).all(axis=0).sum())
    kappa = "–"
    if len(ratings) == 2 and len(np.unique(ratings)) > 1:
        kappa = f"{cohen_kappa_score(*ratings, weights='quadratic'):.3f}"
    return (
        f"| {name} | {_icc(ratings)} | {proportion(same, ratings.shape[1])} | {kappa} "
        f"| {ac2(ratings.T, 5)} |"
    )


def _icc(readings: NDArray[np.int64]) -> Interval:
    return icc(readings.T)
