from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from core.errors import Failed
from db.enums import RevisionState
from db.models import AuditEvent, Revision
from db.session import unit_of_work
from db.states import move
from tests.support.builders.records import after, claim, queue_study

if TYPE_CHECKING:
    from sqlalchemy import Engine

# The diagram in docs/architecture.md, and back to the queue for a retry.
DRAWN = {
    ("receiving", "closed"),
    ("closed", "queued"),
    ("queued", "processing"),
    ("queued", "failed"),
    ("processing", "queued"),
    ("processing", "graded"),
    ("processing", "rejected"),
    ("processing", "failed"),
    ("graded", "delivered"),
    ("delivered", "committed"),
}


def test_only_the_documented_transitions_are_allowed(database_engine: Engine) -> None:
    happened = set()
    with unit_of_work(database_engine) as session:
        revision = session.get(Revision, queue_study(session))
        assert revision is not None
        for start, end in itertools.product(RevisionState, RevisionState):
            revision.state = start
            with suppress(Failed):
                move(session, revision, end, now=after(60))
                happened.add((start.value, end.value))
            assert revision.state is (end if (start, end) in happened else start)
    assert happened == DRAWN


def test_a_state_and_its_audit_event_are_written_together(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
    with pytest.raises(Failed), unit_of_work(database_engine) as session:  # noqa: PT012
        claim(session, revision_id)
        raise Failed("test", "The worker broke before its transaction ended.")
    with unit_of_work(database_engine) as session:
        events = session.scalars(select(AuditEvent.event).order_by(AuditEvent.seq)).all()
        assert events == ["receiving", "closed", "queued"]
        assert session.get_one(Revision, revision_id).state is RevisionState.QUEUED
