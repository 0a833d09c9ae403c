"""The audit trail: an append-only hash chain of events.

Each event stores the hash of the preceding one, and `AuditHead` the number and hash of the newest,
so that a changed, removed or inserted row breaks the chain. Triggers move the head, and refuse
UPDATE and DELETE. Who owns the database can forge all of it; `core.audit_checkpoints` shows that.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from core.errors import EpvsError
from core.uids import canonical_json, digest
from db.clock import current_time
from db.models import AuditEvent, AuditHead

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.orm import Session

GENESIS: Final = "0" * 64
"""Preceding hash of the first event."""

_CHAIN_LOCK: Final = 0x65707673  # "epvs": key of the advisory lock that serialises the chain


@dataclass(frozen=True, slots=True)
class KnownEvent:
    """Number and hash of an event as they are known from elsewhere, e.g. a signed checkpoint."""

    seq: int
    hash: str
    source: str
    """Where they are known from, in words."""


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """Result of a verification; `first_bad` is the number of the first event with a problem."""

    ok: bool
    checked: int
    first_bad: int | None
    problem: str


def append(
    session: Session,
    event: str,
    *,
    study_uid: str | None = None,
    revision_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> None:
    """Append one event to the chain, in the caller's transaction.

    Other transactions that append wait until this one ends, so row locks must be taken before.

    Parameters
    ----------
    session : Session
    event : str
        A revision state, or a short kebab-case name.
    study_uid, revision_id : str, optional
        The study and revision concerned.
    detail : mapping, optional
        UIDs, codes and numbers; never patient data.
    now : datetime, optional
        Time of the event; by default the current time.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_CHAIN_LOCK)))
    # On SQLite the transaction has held the only write lock since its BEGIN IMMEDIATE.
    seq, previous_hash = newest(session)
    row = AuditEvent(
        seq=seq + 1,
        at=(now or current_time(session)).astimezone(UTC),
        event=event,
        study_uid=study_uid,
        revision_id=revision_id,
        detail=json.loads(canonical_json(dict(detail or {}))),
        previous_hash=previous_hash,
    )
    row.hash = _hash(row)
    session.add(row)


def newest(session: Session) -> tuple[int, str]:
    """Return number and hash of the newest event; 0 and `GENESIS` if there is none.

    Raises
    ------
    EpvsError
        Somebody removed the head of the chain.
    """
    head = session.execute(select(AuditHead.seq, AuditHead.hash)).one_or_none()
    if head is None:
        raise EpvsError(
            "The record of the newest audit event is missing.",
            "Do not change the database; compare it with a backup.",
        )
    return head.seq, head.hash


def hash_of(session: Session, seq: int) -> str | None:
    """Return the hash of an event; None if there is no such event."""
    return session.scalar(select(AuditEvent.hash).where(AuditEvent.seq == seq))


def verify(session: Session, known: Iterable[KnownEvent] = ()) -> AuditVerdict:
    """Check the whole chain and report the first break, if there is one.

    The chain alone proves little against the owner of the database, who can change an event and
    compute all hashes anew. He cannot do so to `known` events.

    Parameters
    ----------
    session : Session
    known : iterable of KnownEvent
        Events that the chain must hold.
    """
    expected: dict[int, list[KnownEvent]] = defaultdict(list)
    for event in known:
        expected[event.seq].append(event)
    confirmed = 0
    head = session.execute(select(AuditHead.seq, AuditHead.hash)).one_or_none()
    previous, checked = GENESIS, 0
    rows = session.scalars(
        select(AuditEvent)
        .order_by(AuditEvent.seq)
        .execution_options(yield_per=1000, populate_existing=True)
    )
    with closing(rows):
        for row in rows:
            problem = _find_problem(row, checked + 1, previous)
            if problem:
                return AuditVerdict(False, checked, checked + 1, problem)
            for event in expected.pop(row.seq, ()):
                if event.hash != row.hash:
                    problem = (
                        f"event {row.seq} is not that of {event.source}; "
                        f"what was changed lies in events {confirmed + 1} to {row.seq}"
                    )
                    return AuditVerdict(False, checked, row.seq, problem)
                confirmed = row.seq
            previous, checked = row.hash, checked + 1
            session.expunge(row)  # the chain may not fit into memory
    if head is None:
        return AuditVerdict(False, checked, None, "the record of the newest event is missing")
    if (head.seq, head.hash) != (checked, previous):
        problem = f"the chain ends at event {checked}, the newest should be {head.seq}"
        return AuditVerdict(False, checked, checked + 1, problem)
    if expected:
        missing = expected[min(expected)][0]
        problem = f"the chain ends at event {checked}, but {missing.source} has event {missing.seq}"
        return AuditVerdict(False, checked, checked + 1, problem)
    return AuditVerdict(True, checked, None, "")


def _find_problem(row: AuditEvent, expected_seq: int, previous: str) -> str:
    if row.seq != expected_seq:
        return f"event {expected_seq} is missing; the next is {row.seq}"
    if row.previous_hash != previous:
        return f"event {row.seq} does not follow the preceding event"
    if row.hash != _hash(row):
        return f"event {row.seq} was changed"
    return ""


def _hash(row: AuditEvent) -> str:
    return digest(
        {
            "seq": row.seq,
            "at": row.at.isoformat(timespec="microseconds"),
            "event": row.event,
            "study_uid": row.study_uid,
            "revision_id": row.revision_id,
            "detail": row.detail,
            "previous_hash": row.previous_hash,
        }
    )
