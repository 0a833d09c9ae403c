from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from core.destinations import parse_dicom_destination
from db import commands
from db.delivery import claims, order
from db.enums import DeliveryState, Proof
from db.models import Delivery, Revision
from db.session import unit_of_work
from tests.support.builders.records import (
    PACS,
    STUDY,
    after,
    grade_study,
    queue_study,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

SILENT = parse_dicom_destination("SILENT@127.0.0.1:4999")


def _grade_many(session: Session, n: int, *destinations: object) -> None:
    """Grade `n` studies, one a second, from 40 s on."""
    for k in range(n):
        revision_id = queue_study(session, study=f"{STUDY}.{k}", n=1, at=k)
        grade_study(session, revision_id, *destinations, at=40 + k, uid=f"2.25.{k + 1}")


def _next(session: Session, at: float, limit: int = 2) -> claims.DeliveryClaim | None:
    return order.claim_next(session, now=after(at), lease_s=60, per_destination=limit)


def _take(session: Session, at: float, limit: int = 2) -> claims.DeliveryClaim:
    claim = _next(session, at, limit)
    assert claim is not None
    return claim


def _delivered(session: Session, claim: claims.DeliveryClaim, at: float) -> None:
    assert claims.record_delivered(
        session, claim, now=after(at), proof=Proof.STORE_STATUS, statuses={}
    )


def _not_reached(session: Session, claim: claims.DeliveryClaim, at: float) -> None:
    assert claims.record_postponed(
        session, claim, now=after(at), error="no answer", status=None, available=False
    )


def test_one_destination_takes_no_more_than_its_share(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        _grade_many(session, 5, SILENT)
        last = queue_study(session, study=f"{STUDY}.9", n=1, at=9)
        grade_study(session, last, PACS, at=60, uid="2.25.99")
        taken = [_take(session, 100).destination for _ in range(3)]
        assert taken == [SILENT.name, SILENT.name, PACS.name]
        assert _next(session, 100) is None


def test_a_lost_process_holds_its_share_for_the_lease_only(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        _grade_many(session, 2, SILENT)
        assert _take(session, 100, 1)
        assert _next(session, 159, 1) is None
        assert _take(session, 161, 1)


def test_a_destination_out_of_reach_is_tried_by_one_at_a_time(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        _grade_many(session, 4, SILENT)
        first, second = _take(session, 100), _take(session, 100)
        _not_reached(session, first, 130)
        assert _next(session, 145) is None  # the second is still trying
        _not_reached(session, second, 146)
        assert _next(session, 155) is None  # tried nine seconds ago
        probe = _take(session, 157)
        assert probe.attempt == 1  # one that has not been tried yet
        assert _next(session, 157) is None
        _delivered(session, probe, 158)
        assert _take(session, 158).attempt == 1  # the destination is back: two at a time again
        assert _take(session, 158).attempt == 2


def test_a_destination_out_of_reach_is_tried_every_minute(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        _grade_many(session, 1, SILENT)
        at = 100.0
        for _ in range(12):
            _not_reached(session, _take(session, at), at + 1)
            at += 61
        row = session.scalars(select(Delivery)).one()
        assert (row.attempt, row.unavailable_at) == (12, after(at - 60))
        _delivered(session, _take(session, at), at)
        assert row.unavailable_at is None


def test_a_failure_of_one_delivery_does_not_slow_the_others(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        _grade_many(session, 3, PACS)
        claim = _take(session, 100)
        assert claims.record_postponed(
            session, claim, now=after(101), error="out of resources", status=0xA700
        )
        assert _take(session, 101)
        assert _take(session, 101)


def _two_revisions(session: Session) -> tuple[str, str]:
    """Deliveries of the first and second revision of a study to PACS."""
    first = queue_study(session, n=1)
    grade_study(session, first, PACS, at=40)
    second = commands.reprocess(session, STUDY, now=after(50))
    grade_study(session, second, PACS, at=60, uid="2.25.2")
    rows = {row.revision_id: row.id for row in session.scalars(select(Delivery))}
    return rows[first], rows[second]


def test_the_report_of_an_older_revision_is_sent_first(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        older, newer = _two_revisions(session)
        claim = _take(session, 100)
        assert claim.delivery_id == older
        assert _next(session, 100) is None
        assert claims.record_postponed(
            session, claim, now=after(101), error="out of resources", status=0xA700
        )
        assert _next(session, 105) is None  # the newer one waits while the older one does
        again = _take(session, 112)
        assert again.delivery_id == older
        _delivered(session, again, 113)
        assert _take(session, 113).delivery_id == newer


def test_a_report_that_waits_for_its_commitment_has_arrived(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        older, newer = _two_revisions(session)
        claim = _take(session, 100)
        row = session.get_one(Delivery, older)
        row.stored_at = after(101)
        assert claims.record_postponed(session, claim, now=after(101), error="", status=None)
        assert _take(session, 102).delivery_id == newer


def test_a_parked_report_that_was_overtaken_is_not_sent_any_more(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        older, newer = _two_revisions(session)
        claim = _take(session, 100)
        assert claims.record_parked(session, claim, now=after(101), error="class", status=0xA900)
        assert commands.rearm_deliveries(session, now=after(102)) == 1
        claim = _take(session, 102)
        assert claims.record_parked(session, claim, now=after(103), error="class", status=0xA900)
        claim = _take(session, 104)
        assert claim.delivery_id == newer
        assert commands.rearm_deliveries(session, now=after(105)) == 0
        _delivered(session, claim, 106)
        assert commands.rearm_deliveries(session, now=after(107)) == 0
        row = session.get_one(Delivery, older)
        assert (row.state, row.last_error) == (DeliveryState.PARKED, commands.OVERTAKEN)
        assert session.get_one(Revision, claim.revision_id).state == "delivered"
