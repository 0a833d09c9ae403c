"""Reporting: wires the parts: source headers → pictures → map → SR → check."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pydicom

from core.errors import Failed
from core.results import Grade, NotGradedStudy, Report, ReportObject
from worker.grading.stages.report.check import check_report
from worker.grading.stages.report.document import BaseCase, Case, RejectedCase
from worker.grading.stages.report.not_graded import build_not_graded_sr, images_concerned
from worker.grading.stages.report.parametric_map import build_parametric_map
from worker.grading.stages.report.secondary_capture import build_secondary_captures
from worker.grading.stages.report.source import read_source, read_study_header
from worker.grading.stages.report.sr import build_sr
from worker.grading.stages.report.text import render_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from core.studies import ClosedStudy
    from worker.grading.records import RatingInput, SaliencyMap, Volume
    from worker.grading.stages.report.measurement_report import SRClass


def build_report(
    *,
    study: ClosedStudy,
    volume: Volume,
    rating_input: RatingInput,
    grade: Grade,
    saliency: SaliencyMap,
    sr: SRClass,
    parametric_map: bool,
    completed_at: datetime,
    station_name: str,
) -> Report:
    """Build everything that goes back to the PACS for one study revision.

    The same arguments always give the same bytes.

    Parameters
    ----------
    study, volume, rating_input, grade, saliency
        What the stages before this one made of the study.
    sr : {"comprehensive", "comprehensive3d"}
        SOP class of the SR.
    parametric_map : bool
        Whether to add the saliency as a Parametric Map.
    completed_at : datetime
        When the grade was reached; aware. Written in the study's own time zone where its headers
        state one, else as it is given.
    station_name : str
        Names this node in the objects; at most 16 characters.

    Returns
    -------
    Report
        Objects in the order of sending: parametric map, secondary captures, SR.

    Raises
    ------
    core.errors.Failed
        ``report-invalid``: the check found a fault; nothing of this report may be sent.
    """
    if tuple(image.crop for image in grade.images) != rating_input.placements:
        raise Failed("report-invalid", "The grade is not of the images that were rated.")
    source = read_source(volume)
    case = Case(
        study=study,
        volume=volume,
        source=source,
        grade=grade,
        saliency=saliency,
        completed_at=source.local(completed_at),
        station_name=station_name,
    )
    pm = build_parametric_map(case) if parametric_map else None
    document = build_sr(case, sr, pm)
    return _checked([*([pm] if pm else []), *build_secondary_captures(case), document], case)


def build_not_graded_report(
    *,
    study: ClosedStudy,
    result: NotGradedStudy,
    sr: SRClass,
    completed_at: datetime,
    station_name: str,
) -> Report:
    """Build what tells the PACS that a study revision was not graded, and why: one SR.

    The same arguments always give the same bytes.

    Parameters
    ----------
    study : ClosedStudy
    result : NotGradedStudy
        The reason, and the verdict on each series.
    sr, completed_at, station_name
        As for `build_report`.

    Raises
    ------
    core.errors.Failed
        ``no-readable-header``: no instance says whose study this is. ``report-invalid``: the check
        found a fault. Nothing may be sent.
    """
    header = read_study_header(study)
    if header is None:
        raise Failed("no-readable-header", "No instance of the study can be read.")
    case = RejectedCase(
        study=study,
        source=header,
        completed_at=header.local(completed_at),
        station_name=station_name,
        reason=result.reason,
        detail=result.detail,
        images=images_concerned(study, result),
    )
    return _checked([build_not_graded_sr(case, sr)], case)


def _checked(objects: Sequence[ReportObject], case: BaseCase) -> Report:
    """Let a report through that passes its check; the last of its objects is the SR."""
    check_report(objects, case)
    content = pydicom.dcmread(BytesIO(objects[-1].content))
    return Report(objects=tuple(objects), summary=render_text(content, identity=False))
