"""Export of synthetic subjects as DICOM studies, with a CSV file of their true EPVS counts.

``cohort-from-csv`` reads the CSV file, so that a site can rehearse training before it has data of
its own; and a PACS can send the studies to the node, where the true counts allow checking the
grades.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

from training.cohorts.examples import register_scan
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

_TABLE: Final = "readings.csv"


def write_dicom_cohort(folder: Path, seed: int, subjects: int, conditions: str) -> Iterator[str]:
    """Write one folder of DICOM files per subject, and ``readings.csv`` with the true counts.

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
        One line per subject. A subject that the node would not grade is written too, but gets no
        row in the CSV file, because the slices to count in are unknown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["subject", "path", *IMAGES, SEVERITY])
        for number in range(subjects):
            subject = make_subject(seed, number, conditions=CONDITIONS[conditions])
            name = f"{seed}-{number:05d}"
            write_series(folder / name, subject.voxels, subject.grid, T2_TSE, name)
            try:
                counts = graded_counts(subject)
            except NotGradable as error:
                yield f"{name}: {error}"
                continue
            table.writerow([name, name, *counts, subject.severity_count])
            yield f"{name}: {counts}"


def graded_counts(subject: Subject) -> list[int]:
    """Return the true counts of the six images that the node would grade.

    Raises
    ------
    NotGradable
        The node would not grade the scan.
    """
    volume = as_volume(subject)
    rating = prepare_rating(volume, register_scan(volume, load_template()), enhancement="none")
    return [int(subject.counts(crop.side)[crop.slice_index]) for crop in rating.placements]
