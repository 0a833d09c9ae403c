from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from db import outbox
from db.enums import RevisionState
from db.grading import leases
from db.models import AuditEvent, Revision
from db.session import unit_of_work
from tests.support.builders.records import (
    PACS,
    STUDY,
    after,
    claim,
    grade_study,
    instance,
    queue_study,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


def _try(session: Session, revision_id: str, at: float) -> leases.Claim | None:
    return leases.claim_revision(session, revision_id, now=after(at), lease_s=60, max_attempts=3)


def test_a_claim_charges_the_attempt_and_removes_the_notification(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        held = claim(session, revision_id, at=31)
        assert (held.attempt, held.token, held.lease_until) == (1, 1, after(91))
        assert outbox.due(session, now=after(9999)) == []
        assert _try(session, revision_id, 32) is None
        assert _try(session, "unknown", 32) is None
    with unit_of_work(database_engine) as session:
        assert session.get_one(Revision, revision_id).lease_until == after(91)


def test_expired_leases_are_requeued_until_no_attempts_are_left(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        for attempt in (1, 2, 3):
            at = 100.0 * attempt
            assert claim(session, revision_id, at=at).attempt == attempt
            assert leases.sweep(session, now=after(at + 59.9), max_attempts=3) == []
            assert leases.sweep(session, now=after(at + 60), max_attempts=3) == [revision_id]
            rings = [item.target_id for item in outbox.due(session, now=after(at + 60))]
            assert rings == ([revision_id] if attempt < 3 else [])
        assert leases.sweep(session, now=after(9999), max_attempts=3) == []
        assert _try(session, revision_id, 9999) is None
    with unit_of_work(database_engine) as session:
        revision = session.get_one(Revision, revision_id)
        assert revision.state is RevisionState.FAILED
        assert revision.reason == "attempts-spent"
        assert "3 attempts" in (revision.reason_detail or "")
        event = session.scalars(select(AuditEvent).order_by(AuditEvent.seq.desc())).first()
        assert event is not None
        assert event.detail == {
            "from": "processing",
            "code": "attempts-spent",
            "attempts": 3,
            "last": "lease-expired",
        }


def test_revisions_of_a_study_are_graded_in_their_order(database_engine: Engine) -> None:
    """Otherwise the newer report could not supersede the older one, which would arrive last."""
    with unit_of_work(database_engine) as session:
        first, second = queue_study(session, n=2), queue_study(session, n=3, at=100)
        other = queue_study(session, study="1.2.3", at=100)
        held = claim(session, first, at=131)
        assert _try(session, second, 132) is None  # the first is being graded
        away = {"charge": False, "code": "triton-unavailable", "detail": ""}
        assert leases.release(session, held, now=after(133), retry_after_s=20, **away)  # type: ignore[arg-type]
        assert _try(session, second, 134) is None  # the first waits for Triton
        assert claim(session, other, at=134).attempt == 1
        assert second in [item.target_id for item in outbox.due(session, now=after(134))]
        assert leases.fail(
            session, claim(session, first, at=160), now=after(161), code="x", detail=""
        )
        assert claim(session, second, at=162).attempt == 1


def test_a_claim_takes_over_an_expired_lease_without_a_sweep(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        first = claim(session, revision_id, at=31)
        assert _try(session, revision_id, 90.9) is None
        second = claim(session, revision_id, at=91)
        assert (second.token, second.attempt) == (2, 2)
        assert not leases.extend(session, first, now=after(92), lease_s=60)
        assert leases.extend(session, second, now=after(92), lease_s=60)
        assert leases.sweep(session, now=after(151), max_attempts=3) == []


def test_a_stale_claim_changes_nothing(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        stale = claim(session, revision_id, at=31)
        leases.sweep(session, now=after(91), max_attempts=3)
    for after_takeover in (False, True):  # swept and waiting; then held by another worker
        with unit_of_work(database_engine) as session:
            if after_takeover:
                claim(session, revision_id, at=92)
            before = _snapshot(session, revision_id)
            release = {"retry_after_s": 1.0, "charge": False, "code": "x", "detail": ""}
            assert not leases.release(session, stale, now=after(93), **release)  # type: ignore[arg-type]
            assert not leases.fail(session, stale, now=after(93), code="x", detail="")
            assert not leases.extend(session, stale, now=after(93), lease_s=1)
            session.expire_all()
            assert _snapshot(session, revision_id) == before


def test_an_unavailable_service_costs_no_attempt(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        for number in range(5):
            at = 100.0 * (number + 1)
            held = claim(session, revision_id, at=at)
            assert held.attempt == 1
            assert leases.release(
                session,
                held,
                now=after(at),
                retry_after_s=20,
                charge=False,
                code="triton-unavailable",
                detail="no answer in 60 s",
            )
            assert _try(session, revision_id, at + 19.9) is None
            assert outbox.due(session, now=after(at + 19.9)) == []
            assert len(outbox.due(session, now=after(at + 20))) == 1


def test_failed_attempts_end_in_the_state_failed_with_the_last_code(
    database_engine: Engine,
) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        for number in range(3):
            at = 100.0 * (number + 1)
            assert leases.release(
                session,
                claim(session, revision_id, at=at),
                now=after(at),
                retry_after_s=0,
                charge=True,
                code="model-answer-invalid",
                detail="sum 0.4",
            )
        assert _try(session, revision_id, 400) is None
        revision = session.get_one(Revision, revision_id)
        assert (revision.state, revision.reason) == (RevisionState.FAILED, "attempts-spent")
        assert revision.reason_detail == (
            "after 3 attempts; the last: model-answer-invalid: sum 0.4"
        )
        assert outbox.due(session, now=after(9999)) == []


def test_a_finished_revision_cannot_be_claimed(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        grade_study(session, revision_id, PACS)
        assert _try(session, revision_id, 9999) is None
        assert leases.sweep(session, now=after(9999), max_attempts=3) == []


def _next(session: Session, at: float) -> str | None:
    claimed = leases.claim_next(session, now=after(at), lease_s=60, max_attempts=3)
    return claimed.revision_id if claimed else None


def test_the_next_revision_is_the_first_by_priority_then_the_oldest(
    database_engine: Engine,
) -> None:
    with unit_of_work(database_engine) as session:
        routine = [queue_study(session, study=f"{STUDY}.{k}", n=1, at=k) for k in range(50)]
        urgent = queue_study(
            session,
            study=f"{STUDY}.99",
            n=1,
            at=60,
            first=[instance(9, study=f"{STUDY}.99", received_at=after(60), priority=1)],
        )
        late = queue_study(
            session,
            study=f"{STUDY}.98",
            n=0,
            first=[instance(9, study=f"{STUDY}.98", priority=9)],
        )
        order = [_next(session, 100) for _ in range(52)]
        assert order == [urgent, *routine, late]
        assert _next(session, 100) is None


def test_a_revision_that_must_wait_is_passed_over(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        waits = queue_study(session, n=1)
        held = claim(session, waits, at=31)
        assert leases.release(
            session, held, now=after(32), retry_after_s=60, charge=True, code="x", detail=""
        )
        other = queue_study(session, study=f"{STUDY}.2", n=1, at=10)
        assert [_next(session, 50), _next(session, 50)] == [other, None]
        assert _next(session, 93) == waits


def test_one_without_attempts_left_fails_and_the_following_is_taken(
    database_engine: Engine,
) -> None:
    with unit_of_work(database_engine) as session:
        spent = queue_study(session, n=1)
        session.get_one(Revision, spent).attempt = 3
        following = queue_study(session, study=f"{STUDY}.2", n=1, at=10)
        assert _next(session, 50) == following
        assert session.get_one(Revision, spent).state is RevisionState.FAILED


def test_the_next_revision_never_precedes_an_earlier_one(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        first = queue_study(session, n=1)
        late = instance(7, received_at=after(40), priority=1)
        second = queue_study(session, n=0, at=40, first=[late])
        assert [_next(session, 90), _next(session, 90)] == [first, None]
        assert session.get_one(Revision, second).priority == 1


def _snapshot(session: Session, revision_id: str) -> tuple[object, ...]:
    session.flush()
    revision = session.execute(
        select(*Revision.__table__.columns).where(Revision.id == revision_id)
    ).one()
    events = session.scalars(select(AuditEvent.seq)).all()
    return (*revision, len(events), tuple(outbox.due(session, now=after(9999))))
