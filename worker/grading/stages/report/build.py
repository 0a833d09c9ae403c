"""Builds and checks a report: parametric map and pictures once, then one SR per variant."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pydicom

from core.errors import Failed
from core.results import Grade, ObjectKind, Report, ReportIdentity, ReportObject
from worker.grading.stages.report.check import check_report
from worker.grading.stages.report.context import GradedContext, NotGradedContext, ReportContext
from worker.grading.stages.report.graded_sr import build_graded_sr
from worker.grading.stages.report.not_graded_sr import build_not_graded_sr, find_concerned_images
from worker.grading.stages.report.parametric_map import build_parametric_map
from worker.grading.stages.report.secondary_capture import build_secondary_captures
from worker.grading.stages.report.text import render_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from core.results import IntendedUse, NotGradedStudy, SRVariant
    from core.studies import ClosedStudy
    from worker.grading.records import RatingInput, SaliencyMap, Source, StudyHeader, Volume


def build_report(
    *,
    study: ClosedStudy,
    volume: Volume,
    source: Source,
    rating_input: RatingInput,
    grade: Grade,
    saliency: SaliencyMap,
    variants: Sequence[SRVariant],
    completed_at: datetime,
    station_name: str,
) -> Report:
    """Build the report on a graded study revision.

    The same arguments always give the same bytes.

    Parameters
    ----------
    study, volume, source, rating_input, grade, saliency
        Results of the earlier stages.
    variants : sequence of SRVariant
        One SR is built for each; at least one. The parametric map is built if any refers to it.
    completed_at : datetime
        Time of grading; aware. Written in the time zone that the study's headers state, if any,
        otherwise in its own.
    station_name : str
        Name of this node in the objects; at most 16 characters.

    Returns
    -------
    Report
        Objects in the order of sending: parametric map, secondary captures, SRs.

    Raises
    ------
    core.errors.Failed
        ``report-invalid``: the check found a fault; no object of the report may be sent.
    """
    if tuple(image.crop for image in grade.images) != rating_input.placements:
        raise Failed("report-invalid", "The grade does not belong to the images that were rated.")
    context = GradedContext(
        study=study,
        volume=volume,
        source=source,
        grade=grade,
        saliency=saliency,
        completed_at=source.local(completed_at),
        station_name=station_name,
        intended_use=grade.intended_use,
    )
    parametric_map = None
    if any(variant.parametric_map for variant in variants):
        parametric_map = build_parametric_map(context)
    objects = [
        *([parametric_map] if parametric_map else []),
        *build_secondary_captures(context),
        *(build_graded_sr(context, variant, parametric_map) for variant in variants),
    ]
    return _checked(objects, context)


def build_not_graded_report(
    *,
    study: ClosedStudy,
    header: StudyHeader | None,
    result: NotGradedStudy,
    intended_use: IntendedUse,
    variants: Sequence[SRVariant],
    completed_at: datetime,
    station_name: str,
) -> Report:
    """Build the report on a study revision that was not graded: an SR with the reason.

    The same arguments always give the same bytes.

    Parameters
    ----------
    study : ClosedStudy
    header : StudyHeader or None
        None if no instance can be read.
    result : NotGradedStudy
        The reason, its figures and the verdict on each series.
    intended_use : IntendedUse
        Of the models that are served.
    variants : sequence of SRVariant
        One SR is built for each; at least one, and none with a parametric map.
    completed_at, station_name
        As for `build_report`.

    Raises
    ------
    core.errors.Failed
        ``no-readable-header``: no instance can be read, so the patient is unknown.
        ``report-invalid``: the check found a fault. In both cases nothing may be sent.
    """
    if header is None:
        raise Failed("no-readable-header", "No instance of the study can be read.")
    context = NotGradedContext(
        study=study,
        source=header,
        completed_at=header.local(completed_at),
        station_name=station_name,
        intended_use=intended_use,
        reason=result.reason,
        detail=result.detail,
        images=find_concerned_images(study, result),
    )
    return _checked([build_not_graded_sr(context, variant) for variant in variants], context)


def _checked(objects: Sequence[ReportObject], context: ReportContext) -> Report:
    """Return the report once it has passed its check."""
    check_report(objects, context)
    first = next(item for item in objects if item.kind is ObjectKind.STRUCTURED_REPORT)
    sr = pydicom.dcmread(BytesIO(first.content))
    return Report(
        objects=tuple(objects),
        summary=render_text(sr, identity=False),
        identity=ReportIdentity(
            study_uid=str(sr.StudyInstanceUID),
            patient_id=_whole_text(sr.PatientID),
            accession_number=_whole_text(sr.AccessionNumber),
        ),
    )


def _whole_text(value: str | Sequence[str] | None) -> str:
    """Return a text as it is encoded: pydicom splits it at backslashes."""
    return value if isinstance(value, str) else "\\".join(value or ())
