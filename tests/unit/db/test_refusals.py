"""Counts of refusals are right, and limited in number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from db.models import RefusalCount
from db.refusals import MAX_AE_TITLES, MAX_ROWS, VARIOUS, Kind, Tally, count
from db.session import unit_of_work
from tests.support.builders.records import after

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


def tally(at: float, times: int = 1) -> Tally:
    return Tally(times, after(at), after(at))


def kind(number: int, address: str = "192.0.2.1") -> Kind:
    return Kind("association-refused", "caller-not-on-allow-list", f"AE{number}", address)


def rows(session: Session) -> list[RefusalCount]:
    return list(session.scalars(select(RefusalCount).order_by(RefusalCount.id)))


def test_times_add_up_from_first_to_last(database_engine: Engine) -> None:
    for at, times in ((5, 2), (1, 1), (9, 4)):
        with unit_of_work(database_engine) as session:
            count(session, {kind(1): tally(at, times)})
    with unit_of_work(database_engine) as session:
        (row,) = rows(session)
        assert (row.times, row.first_at, row.last_at) == (7, after(1), after(9))


def test_an_address_has_a_few_titles(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        count(session, {kind(number): tally(1) for number in range(30)})
        count(session, {kind(0): tally(2), kind(99): tally(2)})
        count(session, {kind(0, "192.0.2.2"): tally(3)})
        found = {(row.calling_ae, row.peer_address): row.times for row in rows(session)}
    assert len(found) == MAX_AE_TITLES + 2
    assert found["AE0", "192.0.2.1"] == 2
    assert found[VARIOUS, "192.0.2.1"] == 30 - MAX_AE_TITLES + 1
    assert found["AE0", "192.0.2.2"] == 1


def test_the_rows_that_were_counted_longest_ago_are_given_up(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        for number in range(MAX_ROWS + 50):
            count(session, {kind(number, f"198.51.{number // 256}.{number % 256}"): tally(number)})
        counted_again = kind(60, "198.51.0.60")
        count(session, {counted_again: tally(9000)})
        found = rows(session)
    assert len(found) == MAX_ROWS + 1
    assert sum(row.times for row in found) == MAX_ROWS + 51
    (of_anyone,) = [row for row in found if row.peer_address == VARIOUS]
    assert (of_anyone.calling_ae, of_anyone.times) == (VARIOUS, 50)
    assert (of_anyone.first_at, of_anyone.last_at) == (after(0), after(49))
