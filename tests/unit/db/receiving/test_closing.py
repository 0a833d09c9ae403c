from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from db import outbox
from db.enums import RevisionState
from db.models import AuditEvent, Revision
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import record_instances
from db.session import unit_of_work
from tests.support.builders.records import after, instance

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


def _close(session: Session, at: float, limit: int = 100) -> list[str]:
    return close_quiet_studies(
        session, now=after(at), quiet_period_s=30, max_open_s=100, limit=limit
    )


def test_a_study_closes_after_the_quiet_period_and_is_queued(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1), instance(2, received_at=after(10))])
        assert _close(session, 39.9) == []
        (revision_id,) = _close(session, 40)
        assert _close(session, 41) == []
        assert session.get_one(Revision, revision_id).state is RevisionState.QUEUED
        (item,) = outbox.due(session, now=after(40))
        assert (item.kind, item.target_id) == ("revision", revision_id)
        events = session.scalars(select(AuditEvent).order_by(AuditEvent.seq)).all()
        assert [(e.event, e.detail) for e in events[1:]] == [
            ("closed", {"from": "receiving", "new_instances": 2}),
            ("queued", {"from": "closed"}),
        ]


def test_a_study_that_is_never_quiet_closes_after_the_longest_time(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        for second in range(0, 100, 10):
            record_instances(session, [instance(second, received_at=after(second))])
            assert _close(session, second + 9) == []
        assert len(_close(session, 100)) == 1


def test_the_quiet_period_doubles_with_each_revision(database_engine: Engine) -> None:
    waited = []
    with unit_of_work(database_engine) as session:
        now = 0
        for number in range(11):
            record_instances(session, [instance(number, received_at=after(now))])
            for periods in (1, 2, 4, 8, 16, 32, 64, 128):
                if close_quiet_studies(
                    session, now=after(now + 30 * periods), quiet_period_s=30, max_open_s=1e6
                ):
                    waited.append(periods)
                    break
            now += 10_000
    assert waited == [1, 2, 4, 8, 16, 32, 64, 128, 128, 128, 128]


def test_many_studies_close_in_batches(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1, study=f"1.2.{k}") for k in range(5)])
        assert [len(_close(session, 30, limit=2)) for _ in range(4)] == [2, 2, 1, 0]
