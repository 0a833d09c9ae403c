"""The wiring around the stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from core.errors import Rejected
from core.reasons import Reason
from core.results import ObjectKind, Report, SeriesVerdict
from core.settings import load_settings
from tests.support.builders.made_study import report_object
from tests.support.builders.records import graded_study
from tests.support.builders.sources import COMPLETED_AT, without_images
from worker.grading.pipeline import (
    GradingOptions,
    ReportVariant,
    StageClock,
    merge_reports,
    report_rejection,
    with_verdicts,
)
from worker.grading.records import SelectedSeries

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
        raise Rejected(Reason.GANTRY_TILT)

    run = StageClock()
    with pytest.raises(Rejected, match="gantry-tilt"):
        run(refuse)
    assert run.timings == ()


def test_later_rejection_becomes_the_verdict_on_the_selected_series() -> None:
    series = SelectedSeries(
        study_uid="1.2.3",
        series_uid="1.2.3.5",
        slices=(),
        orientation=(1, 0, 0, 0, 1, 0),
        pixel_spacing_mm=(0.5, 0.5),
        slice_spacing_mm=5.0,
        verdicts=graded_study("r").verdicts,
    )
    rejection = with_verdicts(Rejected(Reason.NOT_A_T2_BRAIN, "correlation 0.1"), series)
    selected, other = series.verdicts
    assert rejection.reason is Reason.NOT_A_T2_BRAIN
    assert rejection.verdicts == (
        SeriesVerdict(
            selected.series_uid, Reason.NOT_A_T2_BRAIN, "correlation 0.1", selected.n_instances
        ),
        other,
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
def test_a_rejection_is_reported_in_the_classes_asked_for(
    destinations: str, classes: tuple[SRClass, ...], tmp_path: Path
) -> None:
    options = GradingOptions.from_settings(load_settings(destinations=destinations))
    report = report_rejection(
        without_images(tmp_path),
        Rejected(Reason.NO_IMAGES),
        options=options,
        completed_at=COMPLETED_AT,
    )
    made = [entry.sop_class_uid for entry in report.objects] if report else []
    assert made == [_SR_CLASS[sr] for sr in classes]


def test_reports_of_two_sr_classes_share_their_pictures() -> None:
    picture = report_object(ObjectKind.SECONDARY_CAPTURE, "2.25.1")
    plain, spatial = (
        report_object(ObjectKind.STRUCTURED_REPORT, uid) for uid in ("2.25.2", "2.25.3")
    )
    merged = merge_reports([Report((picture, plain), "Rating 2"), Report((picture, spatial), "")])
    assert merged == Report((picture, plain, spatial), "Rating 2")
