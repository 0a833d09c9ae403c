"""A time limit that strikes anywhere ends the attempt, and never becomes a verdict on the study.

Celery raises `SoftTimeLimitExceeded` from a signal handler, so at any line. Here it is raised in
turn at function calls spread over every stage, and, by a real signal, while files are read.
"""

from __future__ import annotations

import signal
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import psutil
import pytest
from celery.exceptions import SoftTimeLimitExceeded

from core.destinations import DEFAULT_VARIANT
from core.results import GradedStudy, NotGradedStudy
from tests.support.builders import costly_instances as costly
from tests.support.builders.records import INTENDED_USE, graded_study
from tests.support.builders.series_files import closed_study, stored_study, t2_slices
from tests.support.builders.sources import without_images
from tests.support.builders.synthetic_studies import generate_synthetic_study
from worker.grading.pipeline import GradingOptions, StageClock, grade_study
from worker.grading.reading import Reader, read_study
from worker.grading.records import RatingOutput, SeverityOutput
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from core.studies import ClosedStudy

COMPLETED_AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
POINTS = 6
"""Function calls at which each stage is interrupted."""


class Models:
    """Stands in for the model server: fixed predictions."""

    intended_use = INTENDED_USE
    enhancement = "stationary"

    def rate(self, rating_input: Any) -> RatingOutput:
        return RatingOutput(np.full((6, 5), 0.2, np.float32), graded_study("r").grade.rating_model)

    def assess(self, severity_input: Any) -> SeverityOutput:
        model = graded_study("r").grade.severity_model
        return SeverityOutput(0.2, np.ones((1, 16, 16), np.float32), model)


def grade(study: ClosedStudy, options: GradingOptions) -> GradedStudy | NotGradedStudy:
    return grade_study(
        study,
        COMPLETED_AT,
        read=read_study,
        inference=cast("Any", Models()),
        template=load_template(),
        options=options,
    )


def calls_of(stage: Callable[[], Any], strike_at: int | None = None) -> int:
    """Run a stage; count the calls of functions of the pipeline, raising at one of them."""
    n_calls = 0

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal n_calls
        if event == "call" and "/worker/grading/" in frame.f_code.co_filename:
            n_calls += 1
            if n_calls == strike_at:
                sys.setprofile(None)
                raise SoftTimeLimitExceeded

    sys.setprofile(watch)
    try:
        stage()
    finally:
        sys.setprofile(None)
    return n_calls


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[[], Any]]:
    """Every stage of one grading, ready to be run again; and the report on a refused study."""
    run: dict[str, Callable[[], Any]] = {}
    original = StageClock.__call__

    def record(clock: StageClock, stage: Any, *args: Any, **kwargs: Any) -> Any:
        if stage not in (Models.rate, Models.assess):
            run[stage.__name__] = lambda: stage(*args, **kwargs)
        return original(clock, stage, *args, **kwargs)

    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageClock, "__call__", record)
        graded = grade(closed_study(generate_synthetic_study(folder, seed=20)), GradingOptions())
    assert isinstance(graded, GradedStudy)
    return run


STAGES = [
    *("assemble", "register", "check_quality", "prepare_rating", "prepare_severity"),
    *("map_saliency", "grade", "build_report"),
]


@pytest.mark.parametrize("name", STAGES)
def test_it_passes_through_every_stage(name: str, stages: dict[str, Callable[[], Any]]) -> None:
    # Files are read in another process, and Triton's client is tested with a real server.
    assert set(stages) == {*STAGES, "read_study", "rate", "assess"}
    n_calls = calls_of(stages[name])
    for point in {1 + n_calls * k // POINTS for k in range(POINTS) if n_calls}:
        with pytest.raises(SoftTimeLimitExceeded):
            calls_of(stages[name], strike_at=min(point, n_calls))


def test_it_passes_through_the_report_on_a_study_that_is_not_graded(tmp_path: Path) -> None:
    study = without_images(tmp_path)
    options = GradingOptions(not_graded_variants=(DEFAULT_VARIANT,))
    reading = read_study(study)
    run = lambda: grade_study(  # noqa: E731
        study,
        COMPLETED_AT,
        read=lambda _study: reading,
        inference=cast("Any", Models()),
        template=cast("Any", None),
        options=options,
    )
    n_calls = calls_of(run)
    assert n_calls > 50
    for point in range(1, n_calls + 1, n_calls // 20):
        with pytest.raises(SoftTimeLimitExceeded):
            calls_of(run, strike_at=point)


def test_it_ends_the_process_that_reads(tmp_path: Path) -> None:
    costly.write_many_items(tmp_path / "costly" / "00.dcm", 90_000)
    content = (tmp_path / "costly" / "00.dcm").read_bytes()
    for n in range(1, 40):
        (tmp_path / "costly" / f"{n:02}.dcm").write_bytes(content)
    reader = Reader()

    def strike(_signal: int, _frame: object) -> None:
        raise SoftTimeLimitExceeded

    reader.start()
    server = reader.pid
    assert server is not None
    previous = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        started = time.monotonic()
        with pytest.raises(SoftTimeLimitExceeded):
            reader.read_study(closed_study(tmp_path / "costly"))
        assert time.monotonic() - started < 3
        assert not psutil.pid_exists(server)
        ordinary = reader.read_study(stored_study(tmp_path / "next", t2_slices()))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        reader.close()
    assert ordinary.voxels is not None
