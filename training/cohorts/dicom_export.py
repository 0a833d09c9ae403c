"""Synthetic subjects as DICOM studies that a node can receive, and a CSV file with the truth.

The CSV file is one that ``cohort-from-csv`` takes, so that the way of a site's own data can be
tried before the site has any; and a PACS can send the studies to the node, with the truth at hand.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

from training.cohorts.examples import align
from training.cohorts.site_table import IMAGES, SEVERITY
from training.cohorts.synthetic import as_volume
from training.synthetic.conditions import CONDITIONS
from training.synthetic.dicom import T2_TSE, write_series
from training.synthetic.subjects import make_subject
from worker.grading.errors import NotGradable
from worker.grading.stages.rating import prepare_rating
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from training.synthetic.subjects import Subject

TABLE: Final = "readings.csv"


def write_dicom_cohort(folder: Path, seed: int, subjects: int, conditions: str) -> Iterator[str]:
    """Write one folder of DICOM files a subject, and ``readings.csv`` with the true counts.

    Parameters
    ----------
    folder : Path
        Created.
    seed, subjects : int
    conditions : str
        Key of `CONDITIONS`.

    Yields
    ------
    str
        One line a subject. One whose registration the node would refuse is written too, but has
        no line in the table: which of its slices would be graded is not known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["subject", "path", *IMAGES, SEVERITY])
        for number in range(subjects):
            subject = make_subject(seed, number, conditions=CONDITIONS[conditions])
            name = f"{seed}-{number:05d}"
            write_series(folder / name, subject.voxels, subject.grid, T2_TSE, name)
            try:
                counts = graded_counts(subject)
            except NotGradable as rejection:
                yield f"{name}: {rejection}"
                continue
            table.writerow([name, name, *counts, subject.severity_count])
            yield f"{name}: {counts}"


def graded_counts(subject: Subject) -> list[int]:
    """Count in the six images that the node grades, found by its own registration.

    Raises
    ------
    NotGradable
        The node would refuse the scan.
    """
    volume = as_volume(subject)
    rating = prepare_rating(volume, align(volume, load_template()), enhancement="none")
    return [int(subject.counts(crop.side)[crop.slice_index]) for crop in rating.placements]
