"""The pipeline around its stages."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from pydicom.uid import Comprehensive3DSRStorage

from core.destinations import DEFAULT_VARIANT
from core.errors import Failed
from core.reasons import Reason
from core.results import NotGradedStudy, Report, StageTiming
from core.settings import load_settings
from core.studies import ClosedStudy
from tests.support.builders.records import graded_study
from tests.support.builders.sources import COMPLETED_AT, INTENDED_USE, without_images
from worker.grading import pipeline
from worker.grading.errors import NotGradable
from worker.grading.pipeline import (
    GradingOptions,
    StageClock,
    grade_study,
    not_graded_study,
)
from worker.grading.reading import read_study
from worker.grading.records import Selection

if TYPE_CHECKING:
    from pathlib import Path


def test_stages_are_timed_in_their_order() -> None:
    def first(value: int) -> int:
        return value + 1

    def second(value: int, *, factor: int) -> int:
        return value * factor

    run = StageClock()
    assert run(second, run(first, 1), factor=3) == 6
    assert [timing.stage for timing in run.timings] == ["first", "second"]
    assert all(timing.seconds >= 0 for timing in run.timings)


def test_a_stage_that_raises_is_not_timed_and_not_hidden() -> None:
    def refuse() -> None:
        raise NotGradable(Reason.GANTRY_TILT)

    run = StageClock()
    with pytest.raises(NotGradable, match="gantry-tilt"):
        run(refuse)
    assert run.timings == ()


def test_the_reason_becomes_the_verdict_on_the_selected_series() -> None:
    selected, other = graded_study("r").verdicts
    study = ClosedStudy("1.2.3", "r", 1, ())
    refusal = NotGradable(Reason.NOT_A_T2_BRAIN, "correlation 0.1")
    timings = (StageTiming("read_study", 0.5),)
    result = not_graded_study(study, Selection((selected, other), None), refusal, timings)
    assert result == NotGradedStudy(
        "r",
        Reason.NOT_A_T2_BRAIN,
        "correlation 0.1",
        (replace(selected, reason=refusal.reason, detail=refusal.detail), other),
        timings,
    )


def test_the_variants_built_are_those_of_the_destinations(tmp_path: Path) -> None:
    destinations = "A@127.0.0.1:1?pm=1,B@127.0.0.1:1?sr=comprehensive3d&notgraded=1"
    options = GradingOptions.from_settings(load_settings(destinations=destinations))
    assert options.variants == (("comprehensive", True), ("comprehensive3d", False))
    result = grade(without_images(tmp_path), options)
    assert (result.reason, result.report_failure) == (Reason.UNREADABLE, None)
    assert result.report is not None
    assert [item.sop_class_uid for item in result.report.objects] == [Comprehensive3DSRStorage]
    assert INTENDED_USE.statement.encode() in result.report.objects[0].content


def test_without_a_destination_for_it_there_is_no_report_without_a_grade(tmp_path: Path) -> None:
    result = grade(without_images(tmp_path), GradingOptions())
    assert (result.report, result.report_failure) == (None, None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (
            Failed("report-invalid", "sr: there is no conclusion."),
            "report-invalid",
        ),
        (ValueError("PatientName CANARY^ANNA"), "unexpected"),
    ],
)
def test_a_report_that_cannot_be_built_leaves_the_result(
    error: Exception, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> Report:
        raise error

    monkeypatch.setattr(pipeline, "build_not_graded_report", broken)
    result = grade(without_images(tmp_path), GradingOptions(not_graded_variants=(DEFAULT_VARIANT,)))
    assert (result.reason, result.report) == (Reason.UNREADABLE, None)
    assert result.report_failure is not None
    assert result.report_failure.code == code
    assert "CANARY" not in result.report_failure.message


def grade(study: ClosedStudy, options: GradingOptions) -> NotGradedStudy:
    """Run the pipeline on a study that has no series to grade, so nothing else is used."""
    inference = cast("Any", SimpleNamespace(intended_use=INTENDED_USE))
    template = cast("Any", None)
    result = grade_study(
        study,
        COMPLETED_AT,
        read=read_study,
        inference=inference,
        template=template,
        options=options,
    )
    assert isinstance(result, NotGradedStudy)
    return result
