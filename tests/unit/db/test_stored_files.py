"""The files that rows name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from db.models import FileRemoval
from db.receiving.intake import record_instances
from db.retention.removals import decide_images, decide_report
from db.session import unit_of_work
from db.stored_files import list_stored_files, move_stored_files
from tests.support.builders.records import STUDY, after, grade_study, instance, queue_study
from tests.support.builders.stored_studies import delivered_study

if TYPE_CHECKING:
    from sqlalchemy import Engine


def test_every_file_is_listed_once_and_moved(database_engine: Engine) -> None:
    """Files that were received, are in quarantine, or belong to a report."""
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session, n=2))
        record_instances(session, [instance(1, content="other", received_at=after(60))])
    with unit_of_work(database_engine) as session:
        files = list_stored_files(session)
        assert [file.path.parent.name for file in files] == ["reports"] * 4 + ["spool"] * 3
        assert len({file.name for file in files}) == 7
        move_stored_files(session, Path("/elsewhere"))
    with unit_of_work(database_engine, read_only=True) as session:
        moved = list_stored_files(session)
    assert [file.name for file in moved] == [file.name for file in files]
    for file in moved:
        folder = "reports" if file.name.startswith("reports/") else f"spool/{file.sha256[:2]}"
        assert file.path == Path(f"/elsewhere/{folder}/{file.sha256}.dcm")
        assert file.path == Path("/elsewhere") / file.name
    assert STUDY not in str(moved)


def test_what_retention_removes_is_not_listed(database_engine: Engine, tmp_path: Path) -> None:
    """A restore does not look for it in the old folder."""
    cutoff, now = after(9 * 86400), after(10 * 86400)
    with unit_of_work(database_engine) as session:
        revision_id, images, reports = delivered_study(session, tmp_path)
        assert len(list_stored_files(session)) == len(images + reports)
    with unit_of_work(database_engine) as session:
        decide_images(session, STUDY, cutoff=cutoff, now=now, why="age")
        assert len(list_stored_files(session)) == len(reports)
        decide_report(session, revision_id, STUDY, cutoff=cutoff, now=now)
        assert list_stored_files(session) == []
        assert session.scalars(select(FileRemoval.path)).all()
        move_stored_files(session, Path("/elsewhere"))
        assert not session.scalars(select(FileRemoval.path)).all()
