"""Closes studies that have been quiet long enough, and queues them for grading."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select

from db import outbox
from db.enums import RevisionState
from db.models import Instance, Revision, Study
from db.states import move

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def close_quiet_studies(
    session: Session,
    *,
    now: datetime,
    quiet_period_s: float,
    max_open_s: float,
    limit: int = 100,
) -> list[str]:
    """Close and queue revisions that were quiet for `quiet_period_s` or open for `max_open_s`.

    Studies that a transaction is writing at this moment are left for the next call.

    Returns
    -------
    list of str
        IDs of the revisions that are now queued, at most `limit`.
    """
    quiet_since = now - timedelta(seconds=quiet_period_s)
    opened_since = now - timedelta(seconds=max_open_s)
    # The study's row is locked too: a transaction that holds it may be about to add an instance.
    revisions = session.scalars(
        select(Revision)
        .join(Study, Study.study_uid == Revision.study_uid)
        .where(
            Revision.state == RevisionState.RECEIVING,
            or_(Revision.last_received_at <= quiet_since, Revision.opened_at <= opened_since),
        )
        .order_by(Revision.last_received_at)
        .limit(limit)
        .with_for_update(of=[Study, Revision], skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for revision in revisions:
        new = session.scalar(select(func.count()).where(Instance.first_revision_id == revision.id))
        move(session, revision, RevisionState.CLOSED, now=now, detail={"new_instances": new})
        queue(session, revision, now=now)
    return [revision.id for revision in revisions]


def queue(session: Session, revision: Revision, *, now: datetime) -> None:
    """Queue a closed revision for a worker."""
    move(session, revision, RevisionState.QUEUED, now=now)
    outbox.put_revision(session, revision.id, notify_at=now)
