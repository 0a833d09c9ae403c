"""One attempt on a real database: what each end of the pipeline means for the revision."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import select

from core.errors import EpvsError, Failed, Rejected, Unavailable
from core.reasons import Reason
from core.results import GradedStudy, Report
from core.settings import load_settings
from core.studies import ClosedStudy
from db.grading.leases import claim_revision
from db.models import AuditEvent, Delivery, GradeRow, ReportObjectRow, Revision
from db.receiving.closing import close_quiet_studies
from db.session import create_engine, unit_of_work
from tests.support.builders.made_study import make_graded, receive_files, receive_study
from tests.support.builders.sources import without_images
from worker.grading.attempt import attempt_grading
from worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator

Pipeline = Callable[[ClosedStudy, datetime], GradedStudy]


class OnePipeline(Services):
    """Services on a database of the test's own, with a given pipeline."""

    pipeline: Pipeline

    def grade(self, study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        return self.pipeline(study, completed_at)


def raising(error: BaseException) -> Pipeline:
    def pipeline(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        raise error

    return pipeline


def grading(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
    return make_graded(study)


@pytest.fixture
def services(tmp_path: Path, sqlite_template: Path) -> Iterator[OnePipeline]:
    (tmp_path / "epvs.sqlite").write_bytes(sqlite_template.read_bytes())
    made = OnePipeline(load_settings(data_dir=tmp_path))
    yield made
    made.engine.dispose()


@pytest.fixture
def revision_id(services: OnePipeline) -> str:
    with unit_of_work(services.engine) as session:
        receive_study(session, "1.2.3")
    with unit_of_work(services.engine) as session:
        (queued,) = close_quiet_studies(
            session, now=datetime.now(UTC), quiet_period_s=0, max_open_s=1
        )
    return queued


def attempt(services: OnePipeline, revision_id: str, pipeline: Pipeline) -> Revision:
    services.pipeline = pipeline
    attempt_grading(services, revision_id)
    with unit_of_work(services.engine) as session:
        return session.get_one(Revision, revision_id)


def test_graded_study_is_stored_with_the_bytes_on_disk(
    services: OnePipeline, revision_id: str
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


# --- Rejections that destinations ask to be told of ----------------------------------------------

TOLD, NOT_TOLD = "TOLD@127.0.0.1:104", "OTHER@127.0.0.1:104"
REJECTION = Rejected(Reason.NOT_AXIAL, "normal 40 degrees from the head axis")


@pytest.fixture
def telling(services: OnePipeline) -> OnePipeline:
    """Services with one destination that is told of rejections, and one that is not."""
    services.settings = load_settings(
        data_dir=services.settings.data_dir, destinations=f"{TOLD}?notgraded=1,{NOT_TOLD}"
    )
    return services


def receive_document(services: OnePipeline, folder: Path) -> str:
    """Receive a study of which one instance can be read; return its queued revision."""
    with unit_of_work(services.engine) as session:
        receive_files(session, without_images(folder))
    with unit_of_work(services.engine) as session:
        (queued,) = close_quiet_studies(
            session, now=datetime.now(UTC), quiet_period_s=0, max_open_s=1
        )
    return queued


def stored(services: OnePipeline) -> tuple[list[ReportObjectRow], list[str], list[AuditEvent]]:
    """Objects, destinations, and what the audit trail says of reports that were not made."""
    with unit_of_work(services.engine, read_only=True) as session:
        return (
            list(session.scalars(select(ReportObjectRow))),
            list(session.scalars(select(Delivery.destination))),
            list(session.scalars(select(AuditEvent).where(AuditEvent.event == "report-not-made"))),
        )


def test_a_rejection_is_reported_to_those_who_ask(telling: OnePipeline, tmp_path: Path) -> None:
    revision_id = receive_document(telling, tmp_path)
    assert attempt(telling, revision_id, raising(REJECTION)).state == "rejected"
    (row,), destinations, obstacles = stored(telling)
    kept = Path(row.path).read_bytes()
    assert hashlib.sha256(kept).hexdigest() == row.sha256
    assert (row.kind, destinations, obstacles) == ("sr", [TOLD], [])
    assert b"NGNOTAXIAL" in kept


def test_a_study_that_nobody_can_read_is_rejected_without_report(
    telling: OnePipeline, revision_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The files of this study are gone."""
    assert attempt(telling, revision_id, raising(REJECTION)).state == "rejected"
    objects, destinations, (obstacle,) = stored(telling)
    assert (objects, destinations) == ([], [])
    assert obstacle.detail["code"] == "no-readable-header"
    assert "rejection without report" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failed("report-invalid", "sr: there is no conclusion with the caveat."), "report-invalid"),
        (ValueError("PatientName CANARY^ANNA"), "unexpected"),
        (SoftTimeLimitExceeded(), "unexpected"),
    ],
)
def test_a_report_that_cannot_be_made_leaves_the_rejection_as_it_is(
    telling: OnePipeline,
    revision_id: str,
    error: Exception,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*arguments: object) -> Report | None:
        raise error

    monkeypatch.setattr(telling, "report_rejection", broken)
    revision = attempt(telling, revision_id, raising(REJECTION))
    assert (revision.state, revision.reason, revision.attempt) == ("rejected", "not-axial", 1)
    objects, destinations, (obstacle,) = stored(telling)
    assert (objects, destinations, obstacle.detail["code"]) == ([], [], code)
    assert "CANARY" not in str(obstacle.detail) + caplog.text


def test_a_full_disk_puts_a_rejection_off(telling: OnePipeline, tmp_path: Path) -> None:
    revision_id = receive_document(telling, tmp_path)
    telling.settings.reports_dir.write_text("in the way of the folder")
    revision = attempt(telling, revision_id, raising(REJECTION))
    assert (revision.state, revision.attempt) == ("queued", 0)
    assert revision.reason == "disk-unavailable"
    assert stored(telling) == ([], [], [])


@pytest.mark.parametrize(
    ("error", "state", "attempts", "reason"),
    [
        (Rejected(Reason.NOT_AXIAL), "rejected", 1, "not-axial"),
        (Unavailable("triton", "no answer"), "queued", 0, "triton-unavailable"),
        (Failed("model-answer-invalid", "6 rows wanted"), "queued", 1, "model-answer-invalid"),
        (SoftTimeLimitExceeded(), "queued", 1, "time-limit"),
        (ValueError("PatientName CANARY^ANNA"), "queued", 1, "unexpected"),
        (MemoryError(), "queued", 1, "unexpected"),
    ],
)
def test_how_an_attempt_ends(
    services: OnePipeline,
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


def test_full_disk_costs_no_attempt_and_leaves_nothing(
    services: OnePipeline, revision_id: str
) -> None:
    reports = services.settings.reports_dir

    def filling_the_disk(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        graded = grading(study, completed_at)
        digest = hashlib.sha256(graded.report.objects[-1].content).hexdigest()
        reports.mkdir(exist_ok=True)
        # Whatever is written there ends in ENOSPC.
        (reports / f"{digest}.{os.getpid()}.part").symlink_to("/dev/full")
        return graded

    revision = attempt(services, revision_id, filling_the_disk)
    assert (revision.state, revision.attempt) == ("queued", 0)
    assert revision.reason == "disk-unavailable"
    assert not list(reports.glob("*.part"))


def test_result_of_a_lost_claim_has_no_effect(services: OnePipeline, revision_id: str) -> None:
    """While this attempt computes, its lease runs out and another worker takes over."""

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


def test_a_second_ring_does_nothing(services: OnePipeline, revision_id: str) -> None:
    attempt(services, revision_id, grading)
    revision = attempt(services, revision_id, raising(AssertionError("graded twice")))
    assert (revision.state, revision.attempt) == ("delivered", 1)


def test_claim_reaches_the_report_as_its_time(services: OnePipeline, revision_id: str) -> None:
    times: list[datetime] = []

    def timed(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        times.append(completed_at)
        with unit_of_work(services.engine) as session:
            assert session.get_one(Revision, revision_id).state_since == completed_at
        return make_graded(study)

    attempt(services, revision_id, timed)
    assert times[0].tzinfo is UTC
