"""Reads all that grading takes from the files of a closed study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.grading.errors import NotGradable
from worker.grading.files import check_digest
from worker.grading.reading.source import read_source, read_study_header
from worker.grading.records import Reading
from worker.grading.stages.assembly import decode_slices, new_array
from worker.grading.stages.selection import select_series

if TYPE_CHECKING:
    from core.studies import ClosedStudy
    from worker.grading.stages.assembly import Allocate


def read_study(study: ClosedStudy, allocate: Allocate = new_array) -> Reading:
    """Check the files, select the series to grade, decode its slices and read its headers.

    Parameters
    ----------
    study : ClosedStudy
    allocate : callable
        Returns the array for the voxels; see `decode_slices`.

    Raises
    ------
    Failed
        A file is missing, or is not what was received.
    """
    check_digest(study.instances)
    selection = select_series(study)
    if selection.series is None:
        return Reading(selection, read_study_header(study))
    try:
        voxels = decode_slices(selection.series, allocate)
    except NotGradable as refusal:
        header = read_study_header(study)
        return Reading(selection, header, refusal=(refusal.reason, refusal.detail))
    return Reading(selection, read_source(selection.series), voxels)
