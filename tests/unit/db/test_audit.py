from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError, IntegrityError

from db import audit
from db.models import AuditEvent
from db.session import unit_of_work
from tests.support.builders.records import after

if TYPE_CHECKING:
    from sqlalchemy import Engine


@pytest.fixture
def chain(database_engine: Engine) -> Engine:
    """Five events."""
    with unit_of_work(database_engine) as session:
        for number in range(5):
            audit.append(
                session,
                "caller-refused",
                study_uid=f"1.2.{number}",
                detail={"port": number, "share": 0.1 + number, "codes": ("é", None)},
                now=after(number),
            )
    return database_engine


def _disarm(engine: Engine) -> None:
    """An intruder with the password of the owner."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("DROP FUNCTION refuse_audit_change() CASCADE"))
            return
        names = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
        for name in names.all():
            connection.execute(text(f"DROP TRIGGER {name}"))


def _verify(engine: Engine) -> audit.AuditVerdict:
    with unit_of_work(engine, read_only=True) as session:
        return audit.verify(session)


def test_an_untouched_chain_verifies(chain: Engine) -> None:
    assert _verify(chain) == audit.AuditVerdict(True, 5, None, "")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET detail = '{}' WHERE seq = 3",
        "DELETE FROM audit_events WHERE seq = 5",
        "UPDATE audit_head SET seq = 4",
        "DELETE FROM audit_head",
        "TRUNCATE audit_events",
        (
            "REPLACE INTO audit_events SELECT seq, at, 'x', study_uid, revision_id, detail, "
            "previous_hash, hash FROM audit_events WHERE seq = 5"
        ),
        "REPLACE INTO audit_head SELECT id, seq, 'x' FROM audit_head",
        (
            "INSERT INTO audit_events SELECT 7, at, 'x', NULL, NULL, '{}', hash, 'x' "
            "FROM audit_events WHERE seq = 5"
        ),
        (
            "INSERT INTO audit_events SELECT 6, at, 'x', NULL, NULL, '{}', previous_hash, 'x' "
            "FROM audit_events WHERE seq = 5"
        ),
    ],
)
def test_triggers_refuse_any_change(chain: Engine, owner_engine: Engine, statement: str) -> None:
    """Even to the owner, who would have to remove the triggers first."""
    with pytest.raises((DatabaseError, IntegrityError)), owner_engine.begin() as connection:
        connection.execute(text(statement))
    assert _verify(chain).ok


@pytest.mark.parametrize(
    ("statements", "first_bad"),
    [
        (["UPDATE audit_events SET detail = '{}' WHERE seq = 3"], 3),
        (["UPDATE audit_events SET at = (SELECT at FROM audit_events WHERE seq = 1)"], 2),
        (["UPDATE audit_events SET study_uid = NULL WHERE seq = 5"], 5),
        (["DELETE FROM audit_events WHERE seq = 2"], 2),
        (["DELETE FROM audit_events WHERE seq = 5"], 5),
        (["DELETE FROM audit_events"], 1),
        (
            [
                "UPDATE audit_events SET seq = 9 WHERE seq = 2",
                "UPDATE audit_events SET seq = 2 WHERE seq = 3",
                "UPDATE audit_events SET seq = 3 WHERE seq = 9",
            ],
            2,
        ),
        (["DELETE FROM audit_head"], None),
    ],
    ids=["changed", "moved", "last-changed", "removed", "end-cut", "emptied", "swapped", "no-head"],
)
def test_tampering_is_detected(
    chain: Engine, owner_engine: Engine, statements: list[str], first_bad: int | None
) -> None:
    _disarm(owner_engine)
    with owner_engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    verdict = _verify(chain)
    assert not verdict.ok
    assert verdict.first_bad == first_bad


def test_an_event_without_time_gets_the_current_one(database_engine: Engine) -> None:
    before = datetime.now(UTC)
    with unit_of_work(database_engine) as session:
        audit.append(session, "node-started")
        at = session.scalars(select(AuditEvent.at)).one()
    assert before <= at <= datetime.now(UTC)
