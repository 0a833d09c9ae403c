"""A flood of refusals makes few rows and few audit events, and each refusal is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from core.errors import Unavailable
from db.models import AuditEvent
from db.session import unit_of_work
from db.views import read_view
from receiver import refusals
from receiver.refusals import MAX_EVENTS, Refusals

if TYPE_CHECKING:
    from sqlalchemy import Engine


class Counted:
    """Refusals that are written only by `write`, and a clock set by hand."""

    def __init__(self, engine: Engine) -> None:
        self.now = 0.0
        self.engine = engine
        self.refusals = Refusals(engine, clock=lambda: self.now)

    def refuse(self, address: str, **optional: str) -> None:
        self.refusals.count("refused", reason="flood", peer_address=address, **optional)

    def events(self) -> list[dict[str, Any]]:
        self.refusals._write()
        with unit_of_work(self.engine, read_only=True) as session:
            return list(session.scalars(select(AuditEvent.detail).order_by(AuditEvent.seq)))

    def rows(self) -> list[dict[str, Any]]:
        self.refusals._write()
        with unit_of_work(self.engine, read_only=True) as session:
            return read_view(session, "refusals")


@pytest.fixture
def counted(database_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Counted:
    monkeypatch.setattr(Refusals, "_run", lambda _self: None)
    return Counted(database_engine)


def test_only_the_first_of_a_kind_in_an_hour_is_an_audit_event(counted: Counted) -> None:
    for _ in range(3):
        counted.refuse("192.0.2.1")
    counted.refuse("192.0.2.2", cause="c", calling_ae="PACS")
    first = {"reason": "flood", "peer_address": "192.0.2.1"}
    other = {"reason": "flood", "peer_address": "192.0.2.2", "cause": "c", "calling_ae": "PACS"}
    assert counted.events() == [first, other]
    counted.now = 3601.0
    counted.refuse("192.0.2.1")
    assert counted.events() == [first, other, first]
    assert {(r["calling_ae"], r["peer_address"]): r["times"] for r in counted.rows()} == {
        (None, "192.0.2.1"): 4,
        ("PACS", "192.0.2.2"): 1,
    }


def test_made_up_callers_make_few_events_in_an_hour(counted: Counted) -> None:
    for number in range(5000):
        counted.refuse(f"192.0.{number % 256}.{number // 256}", calling_ae=f"AE{number}")
    assert len(counted.events()) == MAX_EVENTS
    assert sum(row["times"] for row in counted.rows()) == 5000
    assert len(counted.refusals._audited) == MAX_EVENTS
    # Refusals of another event, those of admitted callers for example, are still seen.
    counted.refusals.count("instance-refused", reason="r", peer_address="192.0.2.1")
    assert len(counted.events()) == MAX_EVENTS + 1


def test_a_host_with_many_addresses_is_one(counted: Counted) -> None:
    for number in range(100):
        counted.refuse(f"2001:db8::{number:x}")
    counted.refuse("::ffff:192.0.2.1")
    assert {row["peer_address"]: row["times"] for row in counted.rows()} == {
        "2001:db8::/64": 100,
        "192.0.2.1": 1,
    }


def test_titles_that_no_database_stores_or_terminals_obey_are_made_printable(
    counted: Counted,
) -> None:
    counted.refuse("192.0.2.1", calling_ae="\x00\x1b[2J")
    (row,) = counted.rows()
    assert row["calling_ae"] == r"\x00\x1b[2J"


def test_what_the_database_does_not_take_is_written_later(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise Unavailable("database", "It is down.")

    with monkeypatch.context() as patch:
        patch.setattr(refusals, "count", unavailable)
        counted.refuse("192.0.2.1")
        assert not counted.refusals._write()
        for number in range(5000):
            counted.refuse(f"192.0.{number % 256}.{number // 256}")
        assert not counted.refusals._write()
        assert len(counted.refusals._tallies) <= 257
    assert sum(row["times"] for row in counted.rows()) == 5001
    assert len(counted.events()) == MAX_EVENTS


def test_what_can_never_be_written_does_not_stop_the_others(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*_: object) -> None:
        raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr(refusals, "count", defective)
        counted.refuse("192.0.2.1")
        assert counted.refusals._write()
    counted.refuse("192.0.2.2")
    assert [row["peer_address"] for row in counted.rows()] == ["192.0.2.2"]


def test_everything_is_written_in_the_end(database_engine: Engine) -> None:
    counted = Counted(database_engine)
    for _ in range(3):
        counted.refuse("192.0.2.1")
    counted.refusals.close()
    with unit_of_work(database_engine, read_only=True) as session:
        (row,) = read_view(session, "refusals")
    assert row["times"] == 3
