"""One attempt on a real database: how each outcome changes the revision."""

from __future__ import annotations

import hashlib
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import select

from core.errors import EpvsError, Failed, Unavailable
from core.reasons import Reason
from core.results import (
    GradedStudy,
    NotGradedStudy,
    ObjectKind,
    Report,
    ReportFailure,
    ShadowFailure,
    ShadowResult,
)
from core.settings import load_settings
from db.grading import shadow
from db.grading.leases import claim_revision
from db.models import AuditEvent, Delivery, GradeRow, ReportObjectRow, Revision, ShadowGrade
from db.receiving.closing import close_quiet_studies
from db.session import create_engine, unit_of_work
from tests.support.builders.gradings import Pipeline, ScriptedGrading
from tests.support.builders.made_study import (
    identity_of,
    make_graded,
    receive_study,
    report_object,
)
from worker.grading.attempt import attempt_grading
from worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.studies import ClosedStudy


def raising(error: BaseException) -> Pipeline:
    def pipeline(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        raise error

    return pipeline


def grading(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
    return make_graded(study)


def not_grading(study: ClosedStudy, completed_at: datetime) -> NotGradedStudy:
    return NotGradedStudy(study.revision_id, Reason.NOT_AXIAL, "normal 40 degrees from the axis")


def reporting(study: ClosedStudy, completed_at: datetime) -> NotGradedStudy:
    """A pipeline that does not grade the study and builds a report."""
    number = int(hashlib.sha256(study.revision_id.encode()).hexdigest()[:12], 16)
    sr = report_object(ObjectKind.STRUCTURED_REPORT, f"2.25.{number}")
    return replace(
        not_grading(study, completed_at), report=Report((sr,), "Not graded", identity_of(study))
    )


def failing_to_report(study: ClosedStudy, completed_at: datetime) -> NotGradedStudy:
    failure = ReportFailure("no-readable-header", "No instance of the study can be read.")
    return replace(not_grading(study, completed_at), report_failure=failure)


@pytest.fixture
def services(tmp_path: Path, sqlite_template: Path) -> Iterator[Services]:
    (tmp_path / "epvs.sqlite").write_bytes(sqlite_template.read_bytes())
    made = Services(load_settings(data_dir=tmp_path))
    yield made
    made.engine.dispose()


@pytest.fixture
def revision_id(services: Services) -> str:
    with unit_of_work(services.engine) as session:
        receive_study(session, "1.2.3")
    with unit_of_work(services.engine) as session:
        (queued,) = close_quiet_studies(
            session, now=datetime.now(UTC), quiet_period_s=0, max_open_s=1
        )
    return queued


def attempt(services: Services, revision_id: str, pipeline: Pipeline) -> Revision:
    services.pin_models = lambda: ScriptedGrading(pipeline)  # type: ignore[method-assign]
    attempt_grading(services)
    with unit_of_work(services.engine) as session:
        return session.get_one(Revision, revision_id)


def test_graded_study_is_stored_with_the_bytes_on_disk(
    services: Services, revision_id: str
) -> None:
    assert attempt(services, revision_id, grading).state == "delivered"  # no destination is set
    with unit_of_work(services.engine) as session:
        objects = session.scalars(select(ReportObjectRow)).all()
    assert {row.kind for row in objects} == {"sc", "sr"}
    for row in objects:
        path = Path(row.path)
        assert path.parent == services.settings.reports_dir.absolute()
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256 == path.stem
    assert len(list(services.settings.reports_dir.iterdir())) == len(objects)


# --- Reports on studies that are not graded -----------------------------------------------------

TOLD, NOT_TOLD = "TOLD@127.0.0.1:104", "OTHER@127.0.0.1:104"


@pytest.fixture
def telling(services: Services) -> Services:
    """Services with two destinations, one of which asks for reports on studies not graded."""
    services.settings = load_settings(
        data_dir=services.settings.data_dir, destinations=f"{TOLD}?notgraded=1,{NOT_TOLD}"
    )
    return services


def stored(services: Services) -> tuple[list[ReportObjectRow], list[str], list[AuditEvent]]:
    """Objects, destinations, and audit events of reports that were not made."""
    with unit_of_work(services.engine, read_only=True) as session:
        return (
            list(session.scalars(select(ReportObjectRow))),
            list(session.scalars(select(Delivery.destination))),
            list(session.scalars(select(AuditEvent).where(AuditEvent.event == "report-not-made"))),
        )


def test_the_report_goes_to_the_destinations_that_ask_for_it(
    telling: Services, revision_id: str
) -> None:
    assert attempt(telling, revision_id, reporting).state == "rejected"
    (row,), destinations, failures = stored(telling)
    assert hashlib.sha256(Path(row.path).read_bytes()).hexdigest() == row.sha256
    assert (row.kind, destinations, failures) == ("sr", [TOLD], [])


def test_a_study_is_rejected_even_if_its_report_cannot_be_built(
    telling: Services, revision_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    revision = attempt(telling, revision_id, failing_to_report)
    assert (revision.state, revision.reason, revision.attempt) == ("rejected", "not-axial", 1)
    objects, destinations, (failure,) = stored(telling)
    assert (objects, destinations) == ([], [])
    assert failure.detail["code"] == "no-readable-header"
    assert "no report on the study" in caplog.text


def test_a_full_disk_postpones_a_study_that_is_not_graded(
    telling: Services, revision_id: str
) -> None:
    telling.settings.reports_dir.write_text("in the way of the folder")
    revision = attempt(telling, revision_id, reporting)
    assert (revision.state, revision.attempt) == ("queued", 0)
    assert revision.reason == "disk-unavailable"
    assert stored(telling) == ([], [], [])


@pytest.mark.parametrize(
    ("error", "state", "attempts", "reason"),
    [
        (Unavailable("triton", "no answer"), "queued", 0, "triton-unavailable"),
        (Failed("model-answer-invalid", "6 rows wanted"), "queued", 1, "model-answer-invalid"),
        (SoftTimeLimitExceeded(), "queued", 1, "time-limit"),
        (ValueError("PatientName CANARY^ANNA"), "queued", 1, "unexpected"),
        (MemoryError(), "queued", 1, "unexpected"),
    ],
)
def test_each_exception_has_its_outcome(
    services: Services,
    revision_id: str,
    error: EpvsError | Exception,
    state: str,
    attempts: int,
    reason: str,
) -> None:
    revision = attempt(services, revision_id, raising(error))
    assert (revision.state, revision.attempt, revision.reason) == (state, attempts, reason)
    assert "CANARY" not in (revision.reason_detail or "")
    if state == "queued":
        assert revision.not_before is not None


def test_a_full_disk_costs_no_attempt_and_leaves_no_file(
    services: Services, revision_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uuid4()
    monkeypatch.setattr("worker.grading.report_files.uuid4", lambda: name)
    reports = services.settings.reports_dir

    def filling_the_disk(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        graded = grading(study, completed_at)
        digest = hashlib.sha256(graded.report.objects[-1].content).hexdigest()
        reports.mkdir(exist_ok=True)
        # Writing there raises ENOSPC.
        (reports / f"{digest}.{name.hex}.part").symlink_to("/dev/full")
        return graded

    revision = attempt(services, revision_id, filling_the_disk)
    assert (revision.state, revision.attempt) == ("queued", 0)
    assert revision.reason == "disk-unavailable"
    assert not list(reports.glob("*.part"))


def test_the_result_of_a_stale_claim_is_dropped(services: Services, revision_id: str) -> None:
    """During this attempt the lease expires and another worker claims the revision."""

    def overtaken(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        other = create_engine(services.settings.database_url)
        with unit_of_work(other) as session:
            later = datetime.now(UTC).replace(year=datetime.now(UTC).year + 1)
            claim = claim_revision(session, revision_id, now=later, lease_s=60, max_attempts=3)
        assert claim is not None
        other.dispose()
        return make_graded(study)

    revision = attempt(services, revision_id, overtaken)
    assert (revision.state, revision.attempt) == ("processing", 2)
    with unit_of_work(services.engine) as session:
        assert session.scalars(select(GradeRow)).all() == []


def test_a_repeated_notification_does_nothing(services: Services, revision_id: str) -> None:
    attempt(services, revision_id, grading)
    revision = attempt(services, revision_id, raising(AssertionError("graded twice")))
    assert (revision.state, revision.attempt) == ("delivered", 1)


def test_the_time_of_the_claim_is_that_of_the_report(services: Services, revision_id: str) -> None:
    times: list[datetime] = []

    def timed(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        times.append(completed_at)
        with unit_of_work(services.engine) as session:
            assert session.get_one(Revision, revision_id).state_since == completed_at
        return make_graded(study)

    attempt(services, revision_id, timed)
    assert times[0].tzinfo is UTC


# --- Model versions -----------------------------------------------------------------------------
SHADOW = ShadowResult("rating", "2", ShadowFailure("golden-mismatch", "It differs."), 0.5)


def test_no_study_is_claimed_while_a_reported_version_may_not_be_used(
    services: Services, revision_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> ScriptedGrading:
        raise Failed("golden-mismatch", "The model rating version 2 differs.")

    services.pin_models = refuse  # type: ignore[method-assign]
    attempt_grading(services)
    with unit_of_work(services.engine) as session:
        revision = session.get_one(Revision, revision_id)
    assert (revision.state, revision.attempt) == ("queued", 0)
    assert "no study is taken code=golden-mismatch" in caplog.text


@pytest.mark.parametrize(("pipeline", "n_stored"), [(grading, 1), (not_grading, 0)])
def test_shadow_results_are_stored_for_graded_studies(
    services: Services, revision_id: str, pipeline: Pipeline, n_stored: int
) -> None:
    services.pin_models = lambda: ScriptedGrading(pipeline, (SHADOW,))  # type: ignore[method-assign]
    attempt_grading(services)
    with unit_of_work(services.engine) as session:
        assert len(session.scalars(select(ShadowGrade)).all()) == n_stored


def test_the_shadow_predicts_only_after_the_result_is_stored(
    services: Services, revision_id: str
) -> None:
    class Watching(ScriptedGrading):
        def grade_in_shadow(self) -> tuple[ShadowResult, ...]:
            with unit_of_work(services.engine) as session:
                assert session.get_one(Revision, revision_id).state == "delivered"
                assert session.get(GradeRow, revision_id) is not None
            return self.shadows

    services.pin_models = lambda: Watching(grading, (SHADOW,))  # type: ignore[method-assign]
    attempt_grading(services)
    with unit_of_work(services.engine) as session:
        assert session.scalars(select(ShadowGrade)).one().failure == "golden-mismatch"


def test_a_shadow_result_that_cannot_be_stored_changes_nothing(
    services: Services, revision_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise Unavailable("database", "The database is not available.")

    monkeypatch.setattr(shadow, "store_shadow", unavailable)
    services.pin_models = lambda: ScriptedGrading(grading, (SHADOW,))  # type: ignore[method-assign]
    attempt_grading(services)
    with unit_of_work(services.engine) as session:
        assert session.get_one(Revision, revision_id).state == "delivered"


# --- A worker that is stopped -------------------------------------------------------------------
def test_a_worker_that_is_stopped_gives_its_study_back(
    services: Services, revision_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal comes first")

    ended: list[bool] = []
    monkeypatch.setattr(
        "worker.grading.attempt.end_process",
        lambda: ended.append(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN),
    )
    before = signal.getsignal(signal.SIGTERM)
    try:
        revision = attempt(services, revision_id, stopped)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (revision.state, revision.attempt, revision.reason) == ("queued", 0, "worker-stopped")
    assert ended == [True]  # a second signal does not end it before it has given the study back


def test_the_signal_is_as_before_after_an_attempt(services: Services, revision_id: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert attempt(services, revision_id, raising(ValueError())).state == "queued"
    assert signal.getsignal(signal.SIGTERM) is before
