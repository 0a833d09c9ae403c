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

from core.errors import EpvsError, Failed, Reason, Rejected, Unavailable
from core.records import ClosedStudy, GradedStudy
from core.settings import load_settings
from db.closing import close_quiet_studies
from db.leases import claim_revision
from db.models import GradeRow, ReportObjectRow, Revision
from db.session import create_engine, unit_of_work
from tests.servers.made_study import make_graded, receive_study
from worker.attempts import attempt_grading
from worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["tests.servers.postgres"]

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
