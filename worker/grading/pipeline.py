"""From a closed study to its grade and report: every stage, in order, on one screen."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from core.destinations import DEFAULT_VARIANT, sr_variants
from core.errors import Failed
from core.logs import describe
from core.results import GradedStudy, NotGradedStudy, ReportFailure, StageTiming
from worker.grading.errors import NotGradable
from worker.grading.records import ModelRun, Reading, Selection
from worker.grading.stages.assembly import assemble
from worker.grading.stages.grade import grade
from worker.grading.stages.rating import prepare_rating
from worker.grading.stages.registration import check_quality, register
from worker.grading.stages.report import build_not_graded_report, build_report
from worker.grading.stages.severity import map_saliency, prepare_severity

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from core.results import IntendedUse, SRVariant
    from core.settings import Settings
    from core.studies import ClosedStudy
    from worker.grading.inference import InferenceClient
    from worker.grading.records import StudyHeader, Template

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class GradingOptions:
    """Settings of grading and of the reports to build."""

    variants: tuple[SRVariant, ...] = (DEFAULT_VARIANT,)
    """One SR is built for each."""
    not_graded_variants: tuple[SRVariant, ...] = ()
    """The same for a study that was not graded; empty if no destination asks for such a report."""
    station_name: str = "epvs-node"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the options with every SR variant that a destination needs."""
        return cls(
            variants=sr_variants(settings.destination_list, graded=True),
            not_graded_variants=sr_variants(settings.destination_list, graded=False),
            station_name=settings.station_name,
        )


def grade_study(
    study: ClosedStudy,
    completed_at: datetime,
    *,
    read: Callable[[ClosedStudy], Reading],
    inference: InferenceClient,
    template: Template,
    options: GradingOptions,
    keep: Callable[[ModelRun], None] | None = None,
) -> GradedStudy | NotGradedStudy:
    """Grade one revision of a study and build its report.

    The result depends on the arguments (and the files they name) alone: a repetition with the same
    `completed_at` gives the same bytes.

    Parameters
    ----------
    study : ClosedStudy
    completed_at : datetime
        UTC; the time that the report's objects carry.
    read : callable
        Reads the study's files: `worker.grading.reading.Reader.read_study`.
    inference : InferenceClient
    template : Template
    options : GradingOptions
    keep : callable, optional
        Is given what the models were given and predicted, if the study is graded.

    Raises
    ------
    Failed, Unavailable
        From the stages and the model server.
    """
    run = StageClock()
    try:
        reading = run(read, study)
    except NotGradable as refusal:  # so hostile that not even its headers could be read
        reading = Reading(Selection((), None, refusal.reason, refusal.detail), header=None)
    try:
        series, voxels, source = reading.require_slices()
        volume = run(assemble, series, voxels)
        registration = run(register, volume, template)
        run(check_quality, registration.quality)
        rating_input = run(prepare_rating, volume, registration, enhancement=inference.enhancement)
        rating_output = run(inference.rate, rating_input)
        severity_input = run(prepare_severity, volume, registration, template)
        severity_output = run(inference.assess, severity_input)
        saliency = run(
            map_saliency, severity_output, severity_input, volume, registration, template
        )
    except NotGradable as refusal:
        result = not_graded_study(study, reading.selection, refusal, run.timings)
        return add_not_graded_report(
            result,
            study,
            reading.header,
            completed_at,
            intended_use=inference.intended_use,
            options=options,
        )
    graded = run(grade, rating_input, rating_output, severity_output)
    report = run(
        build_report,
        study=study,
        volume=volume,
        source=source,
        rating_input=rating_input,
        grade=graded,
        saliency=saliency,
        variants=options.variants,
        completed_at=completed_at,
        station_name=options.station_name,
    )
    if keep is not None:
        keep(
            ModelRun(
                volume, registration, rating_input, rating_output, severity_input, severity_output
            )
        )
    return GradedStudy(
        revision_id=study.revision_id,
        series_uid=series.series_uid,
        verdicts=reading.selection.verdicts,
        quality=registration.quality,
        grade=graded,
        saliency=saliency.statistics,
        report=report,
        timings=run.timings,
    )


def not_graded_study(
    study: ClosedStudy,
    selection: Selection,
    refusal: NotGradable,
    timings: tuple[StageTiming, ...],
) -> NotGradedStudy:
    """Build the result of a study that a stage found not gradable.

    The reason becomes the verdict on the series that had been selected.
    """
    return NotGradedStudy(
        revision_id=study.revision_id,
        reason=refusal.reason,
        detail=refusal.detail,
        verdicts=tuple(
            replace(verdict, reason=refusal.reason, detail=refusal.detail)
            if verdict.selected
            else verdict
            for verdict in selection.verdicts
        ),
        timings=timings,
    )


def add_not_graded_report(
    result: NotGradedStudy,
    study: ClosedStudy,
    header: StudyHeader | None,
    completed_at: datetime,
    *,
    intended_use: IntendedUse,
    options: GradingOptions,
) -> NotGradedStudy:
    """Add the report if a destination asks for it, or the reason why it cannot be built.

    The result stands without a report, so no exception leaves this function but the time limit's:
    the attempt is repeated.
    """
    if not options.not_graded_variants:
        return result
    try:
        report = build_not_graded_report(
            study=study,
            header=header,
            result=result,
            intended_use=intended_use,
            variants=options.not_graded_variants,
            completed_at=completed_at,
            station_name=options.station_name,
        )
    except Failed as error:
        return replace(result, report_failure=ReportFailure(error.code, error.message))
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # noqa: BLE001 - a defect here must not undo the result
        return replace(result, report_failure=ReportFailure("unexpected", describe(error)))
    return replace(result, report=report)


class StageClock:
    """Runs pipeline stages and measures how long each takes."""

    def __init__(self) -> None:
        self._timings: list[StageTiming] = []

    def __call__(
        self,
        stage: Callable[_Arguments, _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Run `stage` and record its name and wall-clock seconds."""
        started = time.perf_counter()
        result = stage(*args, **kwargs)
        self._timings.append(StageTiming(stage.__name__, time.perf_counter() - started))
        return result

    @property
    def timings(self) -> tuple[StageTiming, ...]:
        """One for each stage, in the order in which they ran."""
        return tuple(self._timings)
