from __future__ import annotations

from typing import TYPE_CHECKING

from db import outbox
from db.session import unit_of_work
from tests.support.builders.records import PACS, after, claim, grade_study, queue_study

if TYPE_CHECKING:
    from sqlalchemy import Engine


def test_a_notification_is_repeated_only_while_its_target_waits(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        waiting = queue_study(session, study="1.2.1", at=0)
        taken = queue_study(session, study="1.2.2", at=1)
        items = outbox.due(session, now=after(31))
        assert [item.target_id for item in items] == [waiting, taken]
        outbox.mark_notified(session, [item.id for item in items], now=after(31), repeat_after_s=10)
        claim(session, taken, at=32)
        assert outbox.due(session, now=after(40.9)) == []
        assert [item.target_id for item in outbox.due(session, now=after(41))] == [waiting]


def test_deliveries_are_due_after_the_grade(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session), PACS, at=40)
        assert outbox.due(session, now=after(39)) == []
        (item,) = outbox.due(session, now=after(40), limit=1)
        assert item.kind == "delivery"


def test_nothing_may_be_marked_as_notified(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        outbox.mark_notified(session, [], now=after(0))
        assert outbox.due(session, now=after(0)) == []
