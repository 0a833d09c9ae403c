from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from core.settings import Settings
from db import audit
from db.clock import current_time
from db.models import AuditEvent, Instance, RefusalCount, StageTimingRow
from db.receiving import quarantine
from db.receiving.quarantine import Choice
from db.retention.policy import Policy
from db.retention.pruning import preview, prune
from db.session import unit_of_work
from tests.support.builders.records import STUDY, after
from tests.support.builders.stored_studies import delivered_study, receive, received

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

WEEK = timedelta(days=7)
OLD = Policy(images=WEEK, reports=WEEK, quarantine=WEEK, details=WEEK)
"""The builders' studies are from long before a week ago."""
KEEP = Policy(images=None, reports=None, quarantine=None, details=None)


def _since_t0(engine: Engine) -> float:
    """Seconds from the builders' first time to now."""
    with unit_of_work(engine, read_only=True) as session:
        return (current_time(session) - after(0)).total_seconds()


def test_zero_days_keep_for_ever(database_engine: Engine, tmp_path: Path) -> None:
    never = Settings(
        keep_images_days=0, keep_reports_days=0, keep_quarantine_days=0, keep_details_days=0
    )
    assert Policy.of(never) == KEEP
    assert Policy.of(Settings(keep_images_days=0.5)).images == timedelta(hours=12)
    with unit_of_work(database_engine) as session:
        _, images, reports = delivered_study(session, tmp_path)
    prune(database_engine, KEEP, is_short_of_space=lambda: True)
    assert all(path.exists() for path in images + reports)


def test_a_pass_removes_what_is_due_and_says_so(database_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(database_engine) as session:
        _, images, reports = delivered_study(session, tmp_path)
        _, kept, _ = delivered_study(
            session, tmp_path, study="1.2.840.99.2", at=_since_t0(database_engine) - 3600
        )
        session.add(
            RefusalCount(
                event="association-refused",
                reason="x",
                calling_ae="A",
                peer_address="B",
                times=1,
                first_at=after(0),
                last_at=after(0),
            )
        )
        n_timings = session.scalar(select(func.count()).select_from(StageTimingRow)) or 0
        assert n_timings
    due = preview(database_engine, OLD)
    assert (due.studies, due.images.files, due.reports.files) == (1, 3, 4)
    assert due.details == 2  # one study with timings, one count of refusals
    assert all(path.exists() for path in images + reports)
    done = prune(database_engine, OLD)
    assert (done.studies, done.images, done.reports) == (1, due.images, due.reports)
    assert done.removed == due.images + due.reports
    assert done.details == n_timings // 2 + 1
    assert not any(path.exists() for path in images + reports)
    assert all(path.exists() for path in kept)
    with unit_of_work(database_engine) as session:
        events = session.scalars(select(AuditEvent.event)).all()
        assert events.count("files-removed") == 2
        assert events.count("details-removed") == 1
        assert audit.verify(session).ok
    assert prune(database_engine, OLD).removed.files == 0


def test_a_pass_is_limited(database_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(database_engine) as session:
        for n in range(3):
            delivered_study(session, tmp_path, study=f"1.2.840.99.{n}", n=1)
    assert [prune(database_engine, OLD, n_studies=2).studies for _ in range(3)] == [2, 1, 0]


def test_images_go_early_only_while_space_is_short(database_engine: Engine, tmp_path: Path) -> None:
    at = _since_t0(database_engine)
    with unit_of_work(database_engine) as session:
        _, recent, _ = delivered_study(session, tmp_path, study="1.2.840.99.1", n=1, at=at - 3600)
        _, older, _ = delivered_study(
            session, tmp_path, study="1.2.840.99.2", n=1, at=at - 3 * 86400
        )
    prune(database_engine, OLD)
    assert older[0].exists()
    prune(database_engine, OLD, is_short_of_space=lambda: True)
    assert not older[0].exists()
    assert recent[0].exists()  # finished less than a day ago
    with unit_of_work(database_engine) as session:
        (event,) = session.scalars(select(AuditEvent).where(AuditEvent.event == "files-removed"))
        assert event.detail["why"] == "disk"


def test_only_quarantine_that_was_decided_about_is_removed(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        _, images, _ = delivered_study(session, tmp_path, n=1)
        changed = received(tmp_path, 1, content="changed")
        receive(session, changed)
    assert prune(database_engine, OLD).quarantine.files == 0
    assert changed.path.exists()
    with unit_of_work(database_engine) as session:
        quarantine.discard(session, Choice(STUDY), operator="op", now=after(60))
    assert preview(database_engine, OLD).quarantine.files == 1
    done = prune(database_engine, OLD)
    assert done.quarantine.files == 1
    assert not changed.path.exists()
    assert not images[0].exists()  # it waited for the decision
    with unit_of_work(database_engine) as session:  # sent again, it waits again
        again = received(tmp_path, 1, content="changed")
        receive(session, again)
        assert len(quarantine.list_waiting(session, STUDY)) == 1
    prune(database_engine, OLD)
    assert again.path.exists()


def test_an_accepted_instance_is_kept_as_long_as_its_study(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        delivered_study(session, tmp_path, n=1)
        changed = received(tmp_path, 1, content="changed")
        receive(session, changed)
        quarantine.accept(session, Choice(STUDY), operator="op", now=after(60))
    prune(database_engine, OLD)
    assert changed.path.exists()  # the revision that it opened is not finished
    with unit_of_work(database_engine) as session:
        (row,) = session.scalars(select(Instance))
        assert row.path == str(changed.path)
        assert row.removed_at is None
