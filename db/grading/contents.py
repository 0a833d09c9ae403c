"""Which instances a revision consists of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import or_, select

from db.models import Instance, Revision

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

FILES_REMOVED = "files-removed"
"""Code: retention has removed files of the study, so it cannot be graded from all of them."""


def instances_of(revision: Revision, *columns: Any) -> Select[Any]:
    """Select the instances of a revision: all that the study had when it was closed."""
    return (
        select(*(columns or (Instance,)))
        .join(Revision, Revision.id == Instance.first_revision_id)
        .where(
            Instance.study_uid == revision.study_uid,
            Revision.number <= revision.number,
            or_(Instance.last_revision.is_(None), Instance.last_revision >= revision.number),
        )
    )


def count_removed(session: Session, revision: Revision) -> int:
    """Count the instances of a revision whose files retention has removed."""
    removed = instances_of(revision, Instance.sop_instance_uid).where(
        Instance.removed_at.is_not(None)
    )
    return len(session.scalars(removed).all())
