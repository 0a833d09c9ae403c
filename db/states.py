"""State transitions of study revisions: the only module that changes a revision's state.

::

    receiving → closed → queued → processing → graded → delivered [→ committed]
                                   ├→ rejected
                                   ├→ failed
                                   └→ queued   the attempt failed or its lease expired

A queued revision without attempts left fails without another one. Finished revisions never change:
reprocessing opens a new revision.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from core.errors import Failed
from core.priorities import NORMAL
from db import audit
from db.enums import RevisionState
from db.models import Revision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

__all__ = ["ALLOWED", "RevisionState", "lock_revision", "move", "open_revision"]

ALLOWED: Final[Mapping[RevisionState, frozenset[RevisionState]]] = {
    RevisionState.RECEIVING: frozenset({RevisionState.CLOSED}),
    RevisionState.CLOSED: frozenset({RevisionState.QUEUED}),
    RevisionState.QUEUED: frozenset({RevisionState.PROCESSING, RevisionState.FAILED}),
    RevisionState.PROCESSING: frozenset(
        {RevisionState.GRADED, RevisionState.REJECTED, RevisionState.FAILED, RevisionState.QUEUED}
    ),
    RevisionState.GRADED: frozenset({RevisionState.DELIVERED}),
    RevisionState.DELIVERED: frozenset({RevisionState.COMMITTED}),
    RevisionState.COMMITTED: frozenset(),
    RevisionState.REJECTED: frozenset(),
    RevisionState.FAILED: frozenset(),
}
"""All allowed transitions."""


def open_revision(
    session: Session,
    study_uid: str,
    number: int,
    *,
    now: datetime,
    detail: Mapping[str, Any] | None = None,
    priority: int = NORMAL,
) -> Revision:
    """Open revision `number` of a study, in the state receiving.

    The caller has locked the row of the study.
    """
    revision = Revision(
        id=uuid.uuid4().hex,
        study_uid=study_uid,
        number=number,
        state=RevisionState.RECEIVING,
        state_since=now,
        opened_at=now,
        last_received_at=now,
        priority=priority,
    )
    session.add(revision)
    session.flush()
    _record(session, revision, {"number": number, **(detail or {})}, now)
    return revision


def move(
    session: Session,
    revision: Revision,
    to: RevisionState,
    *,
    now: datetime,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Change the state of a locked revision and append the audit event.

    Raises
    ------
    Failed
        ``illegal-transition``: no transition leads from its state to `to`.
    """
    if to not in ALLOWED[revision.state]:
        raise Failed(
            "illegal-transition",
            f"Revision {revision.id} cannot go from {revision.state} to {to}.",
        )
    before = revision.state
    revision.state, revision.state_since, revision.lease_until = to, now, None
    if to is RevisionState.DELIVERED:
        revision.delivered_at = now
    session.flush()
    _record(session, revision, {"from": before, **(detail or {})}, now)


def _record(session: Session, revision: Revision, detail: Mapping[str, Any], now: datetime) -> None:
    audit.append(
        session,
        revision.state,
        study_uid=revision.study_uid,
        revision_id=revision.id,
        detail=detail,
        now=now,
    )


def lock_revision(session: Session, revision_id: str) -> Revision | None:
    """Read a revision and lock its row until the transaction ends."""
    return session.scalar(
        select(Revision)
        .where(Revision.id == revision_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
