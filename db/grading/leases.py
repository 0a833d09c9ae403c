"""Claiming a revision for grading: leases, attempts and fencing tokens.

A worker that is killed stops extending its lease, and the housekeeper queues the revision again. A
worker that resumes after its lease has expired holds an old token, with which it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import aliased

from db import outbox
from db.enums import RevisionState
from db.grading.contents import FILES_REMOVED, count_removed
from db.models import Revision
from db.states import lock_revision, move

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

ATTEMPTS_SPENT = "attempts-spent"
LEASE_EXPIRED = "lease-expired"
_UNFINISHED: Final = (RevisionState.QUEUED, RevisionState.PROCESSING)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to process a revision until `lease_until`; `token` is the fencing token."""

    revision_id: str
    token: int
    attempt: int
    lease_until: datetime


def claim_revision(
    session: Session,
    revision_id: str,
    *,
    now: datetime,
    lease_s: float,
    max_attempts: int,
    models: Mapping[str, str] | None = None,
) -> Claim | None:
    """Claim a queued revision; the attempt is charged before the work starts.

    Parameters
    ----------
    session : Session
    revision_id : str
    now : datetime
    lease_s : float
    max_attempts : int
    models : mapping, optional
        The version of each model that the attempt will use, for the audit trail.

    Returns
    -------
    Claim or None
        None when there is nothing to do: another worker holds it, it is finished, it has to wait
        longer or for an earlier revision of its study; or it has now failed, because no attempts
        are left or files of the study were removed.
    """
    revision = lock_revision(session, revision_id)
    if revision is None:
        return None
    if _has_expired(revision, now):
        _requeue_or_fail(session, revision, now=now, max_attempts=max_attempts)
    if revision.state is not RevisionState.QUEUED or (revision.not_before or now) > now:
        return None
    if revision.attempt >= max_attempts:
        _fail_spent(session, revision, now=now)
        return None
    if _follows_unfinished(session, revision):
        return None  # the notification is repeated
    if n_removed := count_removed(session, revision):
        _fail_removed(session, revision, n_removed, now=now)
        return None
    revision.attempt += 1
    revision.token += 1
    revision.not_before = None
    detail = {"attempt": revision.attempt, **({"models": dict(models)} if models else {})}
    move(session, revision, RevisionState.PROCESSING, now=now, detail=detail)
    lease_until = now + timedelta(seconds=lease_s)
    revision.lease_until = lease_until
    outbox.remove_revision(session, revision.id)
    return Claim(revision.id, revision.token, revision.attempt, lease_until)


def claim_next(
    session: Session,
    *,
    now: datetime,
    lease_s: float,
    max_attempts: int,
    models: Mapping[str, str] | None = None,
) -> Claim | None:
    """Claim the queued revision that is next: by priority, then by when its study was complete.

    Parameters
    ----------
    session, now, lease_s, max_attempts, models
        As in `claim_revision`.

    Returns
    -------
    Claim or None
        None if no revision is due.
    """
    earlier = aliased(Revision)
    passed: set[str] = set()
    while True:
        revision_id = session.scalar(
            select(Revision.id)
            .where(
                Revision.state == RevisionState.QUEUED,
                or_(Revision.not_before.is_(None), Revision.not_before <= now),
                *([Revision.id.not_in(passed)] if passed else []),
                ~exists().where(
                    earlier.study_uid == Revision.study_uid,
                    earlier.number < Revision.number,
                    earlier.state.in_(_UNFINISHED),
                ),
            )
            .order_by(Revision.priority, Revision.last_received_at, Revision.id)
            .limit(1)
            .with_for_update(of=Revision, skip_locked=True, key_share=True)
        )
        if revision_id is None:
            return None
        claim = claim_revision(
            session,
            revision_id,
            now=now,
            lease_s=lease_s,
            max_attempts=max_attempts,
            models=models,
        )
        if claim is not None:
            return claim
        passed.add(revision_id)  # it had no attempts left


def hold(session: Session, claim: Claim) -> Revision | None:
    """Lock the claimed revision; None when the claim is stale."""
    revision = lock_revision(session, claim.revision_id)
    if (
        revision is None
        or revision.state is not RevisionState.PROCESSING
        or revision.token != claim.token
    ):
        return None
    return revision


def extend(session: Session, claim: Claim, *, now: datetime, lease_s: float) -> bool:
    """Extend the lease to `lease_s` seconds from now; False when the claim is stale."""
    revision = hold(session, claim)
    if revision is None:
        return False
    revision.lease_until = now + timedelta(seconds=lease_s)
    return True


def release(
    session: Session,
    claim: Claim,
    *,
    now: datetime,
    retry_after_s: float,
    charge: bool,
    code: str,
    detail: str,
) -> bool:
    """Queue a claimed revision again; False when the claim is stale.

    Parameters
    ----------
    session : Session
    claim : Claim
    now : datetime
    retry_after_s : float
        Time until the next attempt.
    charge : bool
        Whether the attempt counts. It does not if a required service was unavailable.
    code, detail : str
        The reason; no patient data.
    """
    revision = hold(session, claim)
    if revision is None:
        return False
    if not charge:
        revision.attempt -= 1
    revision.reason, revision.reason_detail = code, detail
    _requeue(
        session, revision, now=now, not_before=now + timedelta(seconds=retry_after_s), code=code
    )
    return True


def fail(session: Session, claim: Claim, *, now: datetime, code: str, detail: str) -> bool:
    """Move a claimed revision to the state failed; False when the claim is stale."""
    revision = hold(session, claim)
    if revision is None:
        return False
    revision.reason, revision.reason_detail = code, detail
    move(session, revision, RevisionState.FAILED, now=now, detail={"code": code})
    return True


def sweep(session: Session, *, now: datetime, max_attempts: int, limit: int = 100) -> list[str]:
    """Queue the revisions whose lease has expired; without attempts left, they fail.

    Returns
    -------
    list of str
        Ids of the revisions.
    """
    revisions = session.scalars(
        select(Revision)
        .where(Revision.state == RevisionState.PROCESSING, Revision.lease_until <= now)
        .order_by(Revision.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for revision in revisions:
        _requeue_or_fail(session, revision, now=now, max_attempts=max_attempts)
    return [revision.id for revision in revisions]


def _has_expired(revision: Revision, now: datetime) -> bool:
    return (
        revision.state is RevisionState.PROCESSING
        and revision.lease_until is not None
        and revision.lease_until <= now
    )


def _follows_unfinished(session: Session, revision: Revision) -> bool:
    """Whether an earlier revision of the study has not been graded yet.

    Graded out of order, the newer report could not name the older one as its predecessor, and the
    older one would arrive last.
    """
    earlier = select(Revision.id).where(
        Revision.study_uid == revision.study_uid,
        Revision.number < revision.number,
        Revision.state.in_(_UNFINISHED),
    )
    return session.scalar(earlier.limit(1)) is not None


def _requeue_or_fail(
    session: Session, revision: Revision, *, now: datetime, max_attempts: int
) -> None:
    revision.reason = LEASE_EXPIRED
    revision.reason_detail = "the worker was lost or took longer than its lease"
    if revision.attempt >= max_attempts:
        _fail_spent(session, revision, now=now)
    else:
        _requeue(session, revision, now=now, not_before=now, code=LEASE_EXPIRED)


def _requeue(
    session: Session, revision: Revision, *, now: datetime, not_before: datetime, code: str
) -> None:
    revision.not_before = not_before
    move(session, revision, RevisionState.QUEUED, now=now, detail={"code": code})
    outbox.put_revision(session, revision.id, notify_at=not_before)


def _fail_spent(session: Session, revision: Revision, *, now: datetime) -> None:
    last = f"after {revision.attempt} attempts; the last: {revision.reason}"
    detail = {"code": ATTEMPTS_SPENT, "attempts": revision.attempt, "last": revision.reason}
    revision.reason_detail = f"{last}: {revision.reason_detail or ''}".rstrip(": ")
    revision.reason = ATTEMPTS_SPENT
    move(session, revision, RevisionState.FAILED, now=now, detail=detail)
    outbox.remove_revision(session, revision.id)


def _fail_removed(session: Session, revision: Revision, n_removed: int, *, now: datetime) -> None:
    """Fail a revision that could be graded from a part of its study only."""
    revision.reason = FILES_REMOVED
    revision.reason_detail = (
        f"the files of {n_removed} instances were removed: send the whole study again, then "
        "reprocess it"
    )
    detail = {"code": FILES_REMOVED, "instances": n_removed}
    move(session, revision, RevisionState.FAILED, now=now, detail=detail)
    outbox.remove_revision(session, revision.id)
