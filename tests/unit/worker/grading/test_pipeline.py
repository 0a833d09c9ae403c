"""The wiring around the stages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from core.errors import Failed
from core.reasons import Reason
from core.results import NotGradedStudy, ObjectKind, Report, StageTiming
from core.settings import load_settings
from core.studies import ClosedStudy
from tests.support.builders.made_study import report_object
from tests.support.builders.records import graded_study
from tests.support.builders.sources import COMPLETED_AT, without_images
from worker.grading import pipeline
from worker.grading.errors import NotGradable
from worker.grading.pipeline import (
    GradingOptions,
    ReportVariant,
    StageClock,
    grade_study,
    merge_reports,
    not_graded_study,
)
from worker.grading.records import Selection

if TYPE_CHECKING:
    from pathlib import Path

    from worker.grading.stages.report import SRClass

_SR_CLASS = {
    "comprehensive": ComprehensiveSRStorage,
    "comprehensive3d": Comprehensive3DSRStorage,
}


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
    timings = (StageTiming("select_series", 0.5),)
    result = not_graded_study(study, Selection((selected, other), None), refusal, timings)
    assert result == NotGradedStudy(
        "r",
        Reason.NOT_A_T2_BRAIN,
        "correlation 0.1",
        (replace(selected, reason=refusal.reason, detail=refusal.detail), other),
        timings,
    )


@pytest.mark.parametrize(
    ("destinations", "variants"),
    [
        ("", [("comprehensive", False)]),
        ("A@127.0.0.1:1,B@127.0.0.1:1?sc=0", [("comprehensive", False)]),
        ("A@127.0.0.1:1?sr=comprehensive3d&pm=1", [("comprehensive3d", True)]),
        (
            "A@127.0.0.1:1,B@127.0.0.1:1?pm=1,C@127.0.0.1:1?sr=comprehensive3d",
            [("comprehensive", True), ("comprehensive", False), ("comprehensive3d", False)],
        ),
    ],
)
def test_what_is_built_is_what_the_destinations_ask_for(
    destinations: str, variants: list[ReportVariant]
) -> None:
    options = GradingOptions.from_settings(load_settings(destinations=destinations))
    assert list(options.variants) == variants


@pytest.mark.parametrize(
    ("destinations", "classes"),
    [
        ("A@127.0.0.1:1", ()),
        ("A@127.0.0.1:1,B@127.0.0.1:1?notgraded=1&sr=comprehensive3d", ("comprehensive3d",)),
        ("hl7://127.0.0.1:1?notgraded=1", ("comprehensive",)),
        (
            "A@127.0.0.1:1?notgraded=1&sr=comprehensive3d,hl7://h:1?notgraded=1",
            ("comprehensive3d",),
        ),
        (
            "A@127.0.0.1:1?notgraded=1&sr=comprehensive3d,*@*:1?notgraded=1",
            ("comprehensive", "comprehensive3d"),
        ),
    ],
)
def test_the_report_is_built_in_each_sr_class_that_is_asked_for(
    destinations: str, classes: tuple[SRClass, ...], tmp_path: Path
) -> None:
    options = GradingOptions.from_settings(load_settings(destinations=destinations))
    result = grade(without_images(tmp_path), options)
    assert (result.reason, result.report_failure) == (Reason.UNREADABLE, None)
    report = result.report
    made = [entry.sop_class_uid for entry in report.objects] if report else []
    assert made == [_SR_CLASS[sr] for sr in classes]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failed("report-invalid", "sr: there is no conclusion with the caveat."), "report-invalid"),
        (ValueError("PatientName CANARY^ANNA"), "unexpected"),
        (SoftTimeLimitExceeded(), "unexpected"),
    ],
)
def test_a_report_that_cannot_be_built_leaves_the_result(
    error: Exception, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> Report:
        raise error

    monkeypatch.setattr(pipeline, "build_not_graded_report", broken)
    result = grade(without_images(tmp_path), GradingOptions(not_graded=("comprehensive",)))
    assert (result.reason, result.report) == (Reason.UNREADABLE, None)
    assert result.report_failure is not None
    assert result.report_failure.code == code
    assert "CANARY" not in result.report_failure.message


def grade(study: ClosedStudy, options: GradingOptions) -> NotGradedStudy:
    """Run the pipeline on a study that has no series to grade, so nothing else is used."""
    unused = cast("Any", None)
    result = grade_study(study, COMPLETED_AT, inference=unused, template=unused, options=options)
    assert isinstance(result, NotGradedStudy)
    return result


def test_reports_of_two_sr_classes_share_their_pictures() -> None:
    picture = report_object(ObjectKind.SECONDARY_CAPTURE, "2.25.1")
    plain, spatial = (
        report_object(ObjectKind.STRUCTURED_REPORT, uid) for uid in ("2.25.2", "2.25.3")
    )
    merged = merge_reports([Report((picture, plain), "Rating 2"), Report((picture, spatial), "")])
    assert merged == Report((picture, plain, spatial), "Rating 2")
