"""Closes studies that have been quiet long enough, and queues them for grading."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import case, func, literal, or_, select

from db import outbox
from db.enums import RevisionState
from db.models import Instance, Revision, Study
from db.models.types import UtcDateTime
from db.states import move

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


_MAX_DOUBLINGS: Final = 7
"""Of the quiet period; after that, a revision waits for 128 quiet periods."""


def close_quiet_studies(
    session: Session,
    *,
    now: datetime,
    quiet_period_s: float,
    max_open_s: float,
    limit: int = 100,
) -> list[str]:
    """Close and queue revisions that were quiet long enough, or open for `max_open_s`.

    The quiet period is `quiet_period_s` for the first revision of a study and doubles with each
    further one: a sender that goes on adding images cannot have the study graded and sent again
    and again.

    Studies that a transaction is writing at this moment are left for the next call.

    Returns
    -------
    list of str
        IDs of the revisions that are now queued, at most `limit`.
    """
    opened_since = now - timedelta(seconds=max_open_s)
    # The study's row is locked too: a transaction that holds it may be about to add an instance.
    revisions = session.scalars(
        select(Revision)
        .join(Study, Study.study_uid == Revision.study_uid)
        .where(
            Revision.state == RevisionState.RECEIVING,
            or_(
                Revision.last_received_at <= quiet_since(now, quiet_period_s),
                Revision.opened_at <= opened_since,
            ),
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


def quiet_since(now: datetime, quiet_period_s: float) -> Any:
    """Return, in SQL, the time since which a revision must have been quiet, by its number."""
    limits = [
        literal(now - timedelta(seconds=quiet_period_s * 2**doublings), UtcDateTime())
        for doublings in range(_MAX_DOUBLINGS + 1)
    ]
    by_number = dict(enumerate(limits[:-1], start=1))
    return case(by_number, value=Revision.number, else_=limits[-1])


def queue(session: Session, revision: Revision, *, now: datetime) -> None:
    """Queue a closed revision for a worker."""
    move(session, revision, RevisionState.QUEUED, now=now)
    outbox.put_revision(session, revision.id, notify_at=now)
