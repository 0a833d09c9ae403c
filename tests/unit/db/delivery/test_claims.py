from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from core.destinations import parse_destination
from db import commands, outbox
from db.delivery import claims
from db.enums import DeliveryState, Proof, RevisionState
from db.models import AuditEvent, Delivery, DeliveryObject, Revision
from db.session import unit_of_work
from tests.support.builders.records import (
    ARCHIVE,
    PACS,
    after,
    grade_study,
    queue_study,
    reject_study,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


def _graded(session: Session, *destinations: object) -> tuple[str, list[str]]:
    """Grade a study at 40 s; return its revision and its deliveries in the destinations' order."""
    revision_id = queue_study(session)
    grade_study(session, revision_id, *destinations, at=40)
    rows = {row.destination: row.id for row in session.scalars(select(Delivery))}
    return revision_id, [rows[d.name] for d in destinations]  # type: ignore[attr-defined]


def _claim(session: Session, delivery_id: str, at: float) -> claims.DeliveryClaim:
    claim = claims.claim_delivery(session, delivery_id, now=after(at), lease_s=60)
    assert claim is not None
    return claim


def test_an_extended_lease_is_not_swept(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        _, (pacs,) = _graded(session, PACS)
        claim = _claim(session, pacs, 41)
        assert claims.extend(session, claim, now=after(90), lease_s=60)
        assert claims.sweep(session, now=after(149)) == []
        assert claims.sweep(session, now=after(150)) == [pacs]
        assert not claims.extend(session, claim, now=after(151), lease_s=60)


@pytest.mark.parametrize(
    ("proofs", "state"),
    [
        ([Proof.COMMITMENT, Proof.COMMITMENT], RevisionState.COMMITTED),
        ([Proof.COMMITMENT, Proof.HL7_ACK], RevisionState.COMMITTED),
        ([Proof.HL7_ACK, Proof.STORE_STATUS], RevisionState.DELIVERED),
    ],
)
def test_the_last_delivery_finishes_the_revision(
    database_engine: Engine, proofs: list[Proof], state: RevisionState
) -> None:
    with unit_of_work(database_engine) as session:
        revision_id, ids = _graded(session, PACS, ARCHIVE)
        revision = session.get_one(Revision, revision_id)
        for number, (delivery_id, proof) in enumerate(zip(ids, proofs, strict=True)):
            assert revision.state is RevisionState.GRADED
            claim = _claim(session, delivery_id, 50 + number)
            statuses = {o.sop_instance_uid: 0xB000 for o in claim.objects}
            assert claims.record_delivered(
                session, claim, now=after(60 + number), proof=proof, statuses=statuses
            )
            assert not claims.record_delivered(
                session, claim, now=after(60 + number), proof=proof, statuses=statuses
            )
        assert (revision.state, revision.delivered_at) == (state, after(61))
        assert set(session.scalars(select(DeliveryObject.dimse_status))) == {0xB000}
        assert outbox.due(session, now=after(9999)) == []


def test_a_rejected_revision_stays_rejected_when_its_report_is_delivered(
    database_engine: Engine,
) -> None:
    asking = [parse_destination(f"A{n}@127.0.0.1:1?notgraded=1") for n in (1, 2)]
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        reject_study(session, revision_id, PACS, *asking)
        rows = session.scalars(select(Delivery).order_by(Delivery.destination)).all()
        assert [row.destination for row in rows] == [destination.name for destination in asking]
        first, second = rows
        assert {item.target_id for item in outbox.due(session, now=after(41))} == {
            first.id,
            second.id,
        }
        claim = _claim(session, first.id, 41)
        assert [o.sop_instance_uid for o in claim.objects] == ["2.25.9.3"]
        assert claims.record_delivered(
            session, claim, now=after(42), proof=Proof.COMMITMENT, statuses={}
        )
        assert claims.record_parked(
            session, _claim(session, second.id, 41), now=after(43), error="class", status=0xA900
        )
        assert commands.rearm_deliveries(session, now=after(50)) == 1
        assert claims.record_postponed(
            session, _claim(session, second.id, 50), now=after(51), error="away", status=None
        )
        claim = _claim(session, second.id, 100)
        assert claims.record_delivered(
            session, claim, now=after(101), proof=Proof.COMMITMENT, statuses={}
        )
        revision = session.get_one(Revision, revision_id)
        assert (revision.state, revision.delivered_at) == (RevisionState.REJECTED, None)
        assert outbox.due(session, now=after(9999)) == []
        done = session.scalars(select(AuditEvent).where(AuditEvent.event == "delivery-done")).all()
        assert {event.detail["destination"] for event in done} == {row.destination for row in rows}


def test_retries_back_off_to_an_hour_and_are_parked_after_a_week(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        _, (delivery_id,) = _graded(session, PACS)
        now = after(40)
        delays: list[float] = []
        while len(delays) < 500:
            claim = claims.claim_delivery(session, delivery_id, now=now, lease_s=60)
            assert claim is not None
            assert claims.record_postponed(session, claim, now=now, error="refused", status=0xA700)
            items = outbox.due(session, now=now + timedelta(days=1))
            if not items:
                break
            delivery = session.get_one(Delivery, delivery_id)
            assert delivery.not_before is not None
            early = delivery.not_before - timedelta(milliseconds=1)
            assert claims.claim_delivery(session, delivery_id, now=early, lease_s=60) is None
            assert outbox.due(session, now=early) == []
            delays.append((delivery.not_before - now).total_seconds())
            now = delivery.not_before
        assert delays[:10] == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600]
        assert now - after(40) >= timedelta(days=7)
        delivery = session.get_one(Delivery, delivery_id)
        assert (delivery.state, delivery.last_status) == (DeliveryState.PARKED, 0xA700)
        events = session.scalars(
            select(AuditEvent.event).where(AuditEvent.event.like("delivery-%"))
        ).all()
        assert events == ["delivery-parked"]


def test_a_parked_delivery_waits_until_it_is_rearmed(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id, (pacs, archive) = _graded(session, PACS, ARCHIVE)
        for delivery_id in (pacs, archive):
            claim = _claim(session, delivery_id, 41)
            assert claims.record_parked(session, claim, now=after(42), error="class", status=0xA900)
        assert outbox.due(session, now=after(9e6)) == []
        assert claims.claim_delivery(session, pacs, now=after(9e6), lease_s=60) is None
        assert commands.rearm_deliveries(session, PACS.name, now=after(9e6)) == 1
        assert commands.rearm_deliveries(session, PACS.name, now=after(9e6)) == 0
        assert [i.target_id for i in outbox.due(session, now=after(9e6))] == [pacs]
        claim = _claim(session, pacs, 9e6)
        assert claim.attempt == 1
        assert claims.record_delivered(
            session, claim, now=after(9e6), proof=Proof.C_FIND, statuses={}
        )
        assert session.get_one(Revision, revision_id).state is RevisionState.GRADED
        assert commands.rearm_deliveries(session, now=after(9e6)) == 1


def test_a_delivery_with_an_expired_lease_is_postponed(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        _, (delivery_id,) = _graded(session, PACS)
        stale = _claim(session, delivery_id, 41)
        assert claims.sweep(session, now=after(100)) == []
        assert outbox.due(session, now=after(9999)) == []
        assert claims.sweep(session, now=after(101)) == [delivery_id]
        assert [i.target_id for i in outbox.due(session, now=after(111))] == [delivery_id]
        current = _claim(session, delivery_id, 111)
        for claim, fresh in ((stale, False), (current, True)):
            assert (
                claims.record_postponed(session, claim, now=after(112), error="x", status=None)
                is fresh
            )
            assert (
                claims.record_parked(session, claim, now=after(112), error="x", status=1) is False
            )
        assert not claims.record_delivered(
            session, stale, now=after(112), proof=Proof.C_FIND, statuses={}
        )
