"""Removing files, in two steps that a crash can separate.

`decide_…` marks the rows and lists the files in `file_removals`, in one transaction with the audit
event. `remove_listed` removes listed files and takes them off the list; after a crash it does so
again. Rows and hashes stay. Both lock the row of the study, as receiving does: a file that is
received again meanwhile is either kept, or missed by the receiver, which then refuses it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, exists, func, insert, literal, select, update

from core.uids import digest
from db import audit
from db.enums import Resolution
from db.models import (
    Delivery,
    FileRemoval,
    Instance,
    QuarantinedInstance,
    ReportObjectRow,
    Revision,
    Study,
)
from db.models.types import UtcDateTime
from db.retention import policy
from db.session import unit_of_work

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Engine
    from sqlalchemy.orm import Session

BATCH: Final = 100
"""Files removed in one transaction: on SQLite, receiving waits that long."""
_FORGOTTEN_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Amount:
    """Number and size of files."""

    files: int = 0
    size_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.files + other.files, self.size_bytes + other.size_bytes)


def decide_images(
    session: Session, study_uid: str, *, cutoff: datetime, now: datetime, why: str
) -> Amount:
    """Set the images of a study to be removed, if they still may be.

    Parameters
    ----------
    session : Session
    study_uid : str
    cutoff : datetime
        The study must have been finished by then.
    now : datetime
    why : str
        ``age`` or ``disk``, for the audit trail.
    """
    if not _lock(session, study_uid):
        return Amount()
    may_be = policy.studies_with_removable_images(cutoff).where(Study.study_uid == study_uid)
    if session.scalar(may_be) is None:
        return Amount()
    of_study = (Instance.study_uid == study_uid, Instance.removed_at.is_(None))
    files = _files(session, Instance, *of_study)
    _list_files(session, Instance, study_uid, now, *of_study)
    _mark(session, Instance, now, *of_study)
    accepted = (
        QuarantinedInstance.study_uid == study_uid,
        QuarantinedInstance.resolution == Resolution.ACCEPTED,
        QuarantinedInstance.removed_at.is_(None),
    )
    _mark(session, QuarantinedInstance, now, *accepted)
    session.execute(update(Study).where(Study.study_uid == study_uid).values(files_removed_at=now))
    return _record(session, "images", files, study_uid=study_uid, now=now, why=why)


def decide_report(
    session: Session, revision_id: str, study_uid: str, *, cutoff: datetime, now: datetime
) -> Amount:
    """Set the files of a revision's report to be removed, if they still may be."""
    if not _lock(session, study_uid):
        return Amount()
    session.scalars(  # an operator may be about to have one of them tried again
        select(Delivery.id)
        .where(Delivery.revision_id == revision_id)
        .order_by(Delivery.id)
        .with_for_update(key_share=True)
    ).all()
    may_be = policy.revisions_with_removable_reports(cutoff).where(Revision.id == revision_id)
    if session.execute(may_be).first() is None:
        return Amount()
    of_revision = ReportObjectRow.revision_id == revision_id
    files = _files(session, ReportObjectRow, of_revision)
    _list_files(session, ReportObjectRow, study_uid, now, of_revision)
    session.execute(
        update(Revision)
        .where(Revision.id == revision_id)
        .values(report_removed_at=now)
        .execution_options(synchronize_session=False)
    )
    return _record(
        session, "report", files, study_uid=study_uid, revision_id=revision_id, now=now, why="age"
    )


def decide_quarantine(
    session: Session, study_uid: str, *, cutoff: datetime, now: datetime
) -> Amount:
    """Set what an operator left out of a study to be removed."""
    if not _lock(session, study_uid):
        return Amount()
    ids = session.scalars(
        policy.removable_quarantine(cutoff)
        .with_only_columns(QuarantinedInstance.id)
        .where(QuarantinedInstance.study_uid == study_uid)
        .limit(BATCH)
    ).all()
    chosen = QuarantinedInstance.id.in_(ids)
    files = _files(session, QuarantinedInstance, chosen)
    if not files:
        return Amount()
    _list_files(session, QuarantinedInstance, study_uid, now, chosen)
    _mark(session, QuarantinedInstance, now, chosen)
    return _record(session, "quarantine", files, study_uid=study_uid, now=now, why="age")


def list_for_removal(
    session: Session, table: Any, study_uid: str, now: datetime, *where: ColumnElement[bool]
) -> list[tuple[str, int]]:
    """List the files of rows that are about to be deleted; return SHA-256 and size of each."""
    _list_files(session, table, study_uid, now, *where)
    return _files(session, table, *where)


def remove_listed(engine: Engine, *, limit: int, study_uid: str | None = None) -> Amount:
    """Remove listed files, at most `limit`, and take them off the list.

    A file that cannot be removed stays listed. Where its folder does not exist, the data folder is
    not mounted here. The list forgets files only when their absence is durable.

    Raises
    ------
    Unavailable
        The database does not respond.
    """
    removed, done, folders = Amount(), list[int](), set[Path]()
    listed = select(FileRemoval.study_uid).group_by(FileRemoval.study_uid)
    if study_uid is not None:
        listed = listed.where(FileRemoval.study_uid == study_uid)
    # Those that failed before come last.
    listed = listed.order_by(func.min(FileRemoval.attempts), func.min(FileRemoval.id)).limit(limit)
    with unit_of_work(engine, read_only=True) as session:
        studies = session.scalars(listed).all()
    for uid in studies:
        last = 0
        while limit > 0:
            with unit_of_work(engine) as session:
                batch = _take(session, uid, last, min(BATCH, limit))
                removed += _remove(session, uid, batch, done, folders)
            if not batch:
                break
            limit -= len(batch)
            last = batch[-1].id
    for folder in sorted(folders):
        _fsync(folder)
    for start in range(0, len(done), _FORGOTTEN_AT_ONCE):
        chosen = FileRemoval.id.in_(done[start : start + _FORGOTTEN_AT_ONCE])
        with unit_of_work(engine) as session:
            session.connection().execute(delete(FileRemoval).where(chosen))
    return removed


def _take(session: Session, study_uid: str, last: int, limit: int) -> Sequence[FileRemoval]:
    """Lock a study, and its listed files after the number `last`."""
    _lock(session, study_uid, skip_locked=False)  # there is none if it was erased
    return session.scalars(
        select(FileRemoval)
        .where(FileRemoval.study_uid == study_uid, FileRemoval.id > last)
        .order_by(FileRemoval.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()


def _remove(
    session: Session,
    study_uid: str,
    batch: Sequence[FileRemoval],
    done: list[int],
    folders: set[Path],
) -> Amount:
    """Remove a batch; note in `done` and `folders` what needs no further attempt."""
    in_use = _paths_in_use(session, study_uid, [each.path for each in batch]) if batch else ()
    removed = Amount()
    for each in batch:
        path = Path(each.path)
        if each.path not in in_use:
            try:
                if not path.parent.is_dir():
                    raise FileNotFoundError(path.parent)
                path.unlink(missing_ok=True)
            except OSError:
                each.attempts += 1
                continue
            folders.add(path.parent)
            removed += Amount(1, each.size_bytes)
        done.append(each.id)
    return removed


def _paths_in_use(session: Session, study_uid: str, paths: Collection[str]) -> set[str]:
    """Return those paths that a row of the study has whose file was not removed."""
    quarantined, report = QuarantinedInstance, ReportObjectRow
    statements = (
        select(Instance.path).where(
            Instance.study_uid == study_uid,
            Instance.path.in_(paths),
            Instance.removed_at.is_(None),
        ),
        select(quarantined.path).where(
            quarantined.study_uid == study_uid,
            quarantined.path.in_(paths),
            quarantined.removed_at.is_(None),
        ),
        select(report.path)
        .join(Revision, Revision.id == report.revision_id)
        .where(
            Revision.study_uid == study_uid,
            report.path.in_(paths),
            Revision.report_removed_at.is_(None),
        ),
    )
    return {path for statement in statements for path in session.scalars(statement)}


def _lock(session: Session, study_uid: str, *, skip_locked: bool = True) -> bool:
    """Lock the row of a study; False where it is being written, or there is none."""
    locked = (
        select(Study.study_uid)
        .where(Study.study_uid == study_uid)
        .with_for_update(skip_locked=skip_locked, key_share=True)
    )
    return session.scalar(locked) is not None


def _files(session: Session, table: Any, *where: ColumnElement[bool]) -> list[tuple[str, int]]:
    rows = session.execute(
        select(table.sha256, table.size_bytes).where(*where).order_by(table.sha256)
    )
    return [(sha256, size) for sha256, size in rows]


def _list_files(
    session: Session, table: Any, study_uid: str, now: datetime, *where: ColumnElement[bool]
) -> None:
    is_listed = exists().where(FileRemoval.path == table.path)
    rows = select(
        literal(study_uid),
        table.path,
        func.max(table.size_bytes),
        literal(now, UtcDateTime()),
        literal(0),
    ).where(*where, ~is_listed)
    columns = ["study_uid", "path", "size_bytes", "decided_at", "attempts"]
    session.execute(insert(FileRemoval).from_select(columns, rows.group_by(table.path)))


def _mark(session: Session, table: Any, now: datetime, *where: ColumnElement[bool]) -> None:
    session.execute(
        update(table)
        .where(*where)
        .values(removed_at=now)
        .execution_options(synchronize_session=False)
    )


def _record(
    session: Session,
    kind: str,
    files: Iterable[tuple[str, int]],
    *,
    study_uid: str,
    now: datetime,
    why: str,
    revision_id: str | None = None,
) -> Amount:
    """Append the audit event: number, size, and one hash over the hashes of the files."""
    listed = list(files)
    amount = Amount(len(listed), sum(size for _, size in listed))
    detail = {
        "kind": kind,
        "why": why,
        "files": amount.files,
        "bytes": amount.size_bytes,
        "sha256": digest({"files": [sha256 for sha256, _ in listed]}),
    }
    audit.append(
        session,
        "files-removed",
        study_uid=study_uid,
        revision_id=revision_id,
        detail=detail,
        now=now,
    )
    return amount


def _fsync(folder: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
