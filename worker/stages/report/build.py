"""Reporting: wires the parts: source headers → pictures → map → SR → check."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pydicom

from core.errors import Failed
from core.records import ClosedStudy, Grade, RatingInput, Report, SaliencyMap, Volume
from worker.stages.report.check import check_report
from worker.stages.report.document import Case
from worker.stages.report.parametric_map import build_parametric_map
from worker.stages.report.secondary_capture import build_secondary_captures
from worker.stages.report.source import read_source
from worker.stages.report.sr import build_sr
from worker.stages.report.text import render_text

if TYPE_CHECKING:
    from datetime import datetime

    from worker.stages.report.measurement_report import SRClass


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
    objects = (*([pm] if pm else []), *build_secondary_captures(case), document)
    check_report(objects, case)
    content = pydicom.dcmread(BytesIO(document.content))
    return Report(objects=objects, summary=render_text(content, identity=False))
