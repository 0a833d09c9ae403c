"""Files that are received again after retention has removed them.

The caller has locked the study's row, as `db.retention.removals` does while it removes a file: one
of the two sees what the other has done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, update

from db import audit
from db.models import FileRemoval, Instance, Study

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from core.studies import ReceivedInstance


def restore(session: Session, instance: ReceivedInstance) -> bool:
    """Record that the file of a known instance is there again.

    Returns
    -------
    bool
        False if it has been removed since it was received; nothing was changed.
    """
    if not instance.path.exists():
        return False
    keep(session, str(instance.path))
    session.execute(
        update(Instance)
        .where(Instance.sop_instance_uid == instance.sop_instance_uid)
        .values(removed_at=None, restored_at=instance.received_at, path=str(instance.path))
        .execution_options(synchronize_session=False)
    )
    for study_uid in note_files(session, [instance.study_uid]):
        audit.append(session, "files-restored", study_uid=study_uid, now=instance.received_at)
    return True


def note_files(session: Session, study_uids: Iterable[str]) -> list[str]:
    """Record that studies have files; return those that had none any more."""
    uids = sorted(study_uids)
    if not uids:
        return []
    return list(
        session.scalars(
            update(Study)
            .where(Study.study_uid.in_(uids), Study.files_removed_at.is_not(None))
            .values(files_removed_at=None)
            .returning(Study.study_uid)
            .execution_options(synchronize_session=False)
        )
    )


def keep(session: Session, path: str) -> None:
    """Let a file that was received again not be removed."""
    session.execute(delete(FileRemoval).where(FileRemoval.path == path))
