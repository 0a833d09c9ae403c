from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from core.errors import EpvsError
from db import audit, commands
from db.enums import RevisionState
from db.grading.leases import claim_revision
from db.grading.results import load_closed_study
from db.models import AuditEvent, FileRemoval, Instance, Revision, Study
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import Intake
from db.retention import removals
from db.retention.removals import Amount, decide_images, decide_report, remove_listed
from db.session import unit_of_work
from tests.support.builders.records import STUDY, after, queue_study
from tests.support.builders.stored_studies import (
    deliver,
    delivered_study,
    grade,
    park,
    receive,
    received,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

DAY = timedelta(days=1)
LATER = after(10 * 86400)


def _decide(session: Session, cutoff_s: float = 9 * 86400) -> Amount:
    return decide_images(session, STUDY, cutoff=after(cutoff_s), now=LATER, why="age")


def _decide_report(session: Session, revision_id: str, cutoff_s: float = 9 * 86400) -> Amount:
    return decide_report(session, revision_id, STUDY, cutoff=after(cutoff_s), now=LATER)


def _removed(session: Session) -> list[bool]:
    rows = session.scalars(select(Instance.removed_at).order_by(Instance.sop_instance_uid))
    return [removed_at is not None for removed_at in rows]


def test_files_go_and_rows_stay(database_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(database_engine) as session:
        revision_id, images, reports = delivered_study(session, tmp_path)
    with unit_of_work(database_engine) as session:
        assert _decide(session).files == 3
        assert _decide_report(session, revision_id).files == 4
    assert all(path.exists() for path in images + reports)
    amount = remove_listed(database_engine, limit=1000)
    assert amount.files == 7
    assert amount.size_bytes > 7
    assert not any(path.exists() for path in images + reports)
    with unit_of_work(database_engine) as session:
        assert _removed(session) == [True, True, True]
        assert session.scalars(select(FileRemoval.id)).all() == []
        events = session.scalars(select(AuditEvent).where(AuditEvent.event == "files-removed"))
        assert [event.detail["kind"] for event in events] == ["images", "report"]
        assert audit.verify(session).ok


def test_nothing_goes_before_its_delivery_is_proven(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        images = [received(tmp_path, k) for k in (1, 2)]
        receive(session, *images)
        assert not _decide(session).files
        (revision_id,) = close_quiet_studies(
            session, now=after(30), quiet_period_s=0, max_open_s=5400
        )
        assert not _decide(session).files
        grade(session, tmp_path, revision_id)
        assert not _decide(session).files
        assert not _decide_report(session, revision_id).files
        deliver(session, revision_id)
        assert not _decide(session, cutoff_s=40).files
        assert not _decide_report(session, revision_id, cutoff_s=40).files
        assert _decide_report(session, revision_id).files
        assert _decide(session).files == 2


def test_a_parked_delivery_holds_everything_until_it_is_abandoned(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session, n=0, first=[received(tmp_path, 1)])
        grade(session, tmp_path, revision_id)
        park(session, revision_id)
        assert not _decide(session).files
        assert not _decide_report(session, revision_id).files
        assert commands.abandon(session, study_uid=STUDY, operator="op", now=after(60)) == 1
        assert _decide_report(session, revision_id).files
        assert _decide(session).files == 1
        assert commands.rearm_deliveries(session, now=after(61)) == 0  # its report is gone


def test_a_failed_study_waits_for_a_person(database_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session, n=0, first=[received(tmp_path, 1)])
        revision = session.get_one(Revision, revision_id)
        revision.state = RevisionState.FAILED
        session.flush()
        assert not _decide(session).files
        assert commands.abandon(session, study_uid=STUDY, operator="op", now=after(60)) == 1
        assert _decide(session).files == 1


def test_an_undecided_quarantined_instance_holds_its_study(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        delivered_study(session, tmp_path)
        other = received(tmp_path, 9, patient_id="SOMEBODY-ELSE")
        assert receive(session, other) == [Intake.OTHER_PATIENT]
        assert not _decide(session).files


def test_a_crash_between_decision_and_removal_is_made_good(
    database_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unit_of_work(database_engine) as session:
        _, images, _ = delivered_study(session, tmp_path)
        _decide(session)

    def crash(_folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removals, "_fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            remove_listed(database_engine, limit=1000)
    with unit_of_work(database_engine) as session:
        assert len(session.scalars(select(FileRemoval.id)).all()) == 3
    remove_listed(database_engine, limit=1000)
    assert not any(path.exists() for path in images)
    with unit_of_work(database_engine) as session:
        assert session.scalars(select(FileRemoval.id)).all() == []


def test_a_file_that_cannot_be_removed_stays_listed_and_delays_no_other(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        _, images, _ = delivered_study(session, tmp_path, n=2)
        _decide(session)
    images[0].unlink()
    images[0].mkdir()
    assert remove_listed(database_engine, limit=1000).files == 1
    assert not images[1].exists()
    assert remove_listed(database_engine, limit=1000).files == 0
    images[0].rmdir()
    remove_listed(database_engine, limit=1000)
    with unit_of_work(database_engine) as session:
        assert session.scalars(select(FileRemoval.id)).all() == []


def test_a_folder_that_is_not_mounted_is_not_taken_for_an_empty_one(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        delivered_study(session, tmp_path, n=1)
        _decide(session)
    (tmp_path / "spool").rename(tmp_path / "elsewhere")
    assert remove_listed(database_engine, limit=1000) == Amount()
    (tmp_path / "elsewhere").rename(tmp_path / "spool")
    assert remove_listed(database_engine, limit=1000).files == 1


def test_a_late_duplicate_is_a_duplicate_and_brings_its_file_back(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        delivered_study(session, tmp_path, n=2)
        _decide(session)
    remove_listed(database_engine, limit=1000)
    again = received(tmp_path, 1, received_at=LATER)
    with unit_of_work(database_engine) as session:
        assert receive(session, again) == [Intake.DUPLICATE]
        assert _removed(session) == [False, True]
        assert session.get_one(Study, STUDY).files_removed_at is None
        assert len(session.scalars(select(Revision.id)).all()) == 1
        assert not _decide(session).files  # its age begins anew
        with pytest.raises(EpvsError, match=r"files-removed"):
            commands.reprocess(session, STUDY, now=LATER)
        assert receive(session, received(tmp_path, 2, received_at=LATER)) == [Intake.DUPLICATE]
        assert commands.reprocess(session, STUDY, now=LATER)


def test_what_is_received_again_before_its_removal_is_kept(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        _, images, _ = delivered_study(session, tmp_path, n=2)
        _decide(session)
    with unit_of_work(database_engine) as session:
        assert receive(session, received(tmp_path, 1, received_at=LATER)) == [Intake.DUPLICATE]
    remove_listed(database_engine, limit=1000)
    assert [path.exists() for path in images] == [True, False]


def test_a_duplicate_whose_file_went_meanwhile_is_no_success(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        delivered_study(session, tmp_path, n=1)
        _decide(session)
    again = received(tmp_path, 1, received_at=LATER)
    remove_listed(database_engine, limit=1000)  # between the renaming and the row
    with unit_of_work(database_engine) as session:
        assert receive(session, again) == [Intake.REMOVING]
        assert _removed(session) == [True]


def test_other_content_of_a_removed_instance_is_quarantined(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        delivered_study(session, tmp_path, n=1)
        _decide(session)
    remove_listed(database_engine, limit=1000)
    with unit_of_work(database_engine) as session:
        assert receive(session, received(tmp_path, 1, content="other")) == [Intake.CONFLICT]


def test_a_late_new_instance_of_a_removed_study_is_not_graded_alone(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        delivered_study(session, tmp_path, n=2)
        _decide(session)
    remove_listed(database_engine, limit=1000)
    with unit_of_work(database_engine) as session:
        assert receive(session, received(tmp_path, 3, received_at=LATER)) == [Intake.STORED]
        (revision_id,) = close_quiet_studies(
            session, now=LATER + DAY, quiet_period_s=30, max_open_s=5400
        )
        claimed = claim_revision(session, revision_id, now=LATER + DAY, lease_s=60, max_attempts=3)
        assert claimed is None
        revision = session.get_one(Revision, revision_id)
        assert (revision.state, revision.reason) == (RevisionState.FAILED, "files-removed")
    with unit_of_work(database_engine) as session:  # the whole study again: it can be graded
        receive(session, received(tmp_path, 1), received(tmp_path, 2))
        again = commands.reprocess(session, STUDY, now=LATER + DAY)
        assert claim_revision(session, again, now=LATER + DAY, lease_s=60, max_attempts=3)


def test_a_late_new_instance_with_the_whole_study_is_graded(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        delivered_study(session, tmp_path, n=2)
        _decide(session)
    remove_listed(database_engine, limit=1000)
    with unit_of_work(database_engine) as session:
        sent = [received(tmp_path, n, received_at=LATER) for n in (3, 1, 2)]
        outcomes = receive(session, *sent)
        assert outcomes == [Intake.STORED, Intake.DUPLICATE, Intake.DUPLICATE]
        (revision_id,) = close_quiet_studies(
            session, now=LATER + DAY, quiet_period_s=30, max_open_s=5400
        )
        assert claim_revision(session, revision_id, now=LATER + DAY, lease_s=60, max_attempts=3)
        assert len(load_closed_study(session, revision_id).instances) == 3
