"""Storage commitment in SQL: a report settles its delivery at any time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from core.commitment import CommitmentReport, Reporter, ReportRefusal
from db import commands, outbox
from db.delivery import claims, commitments
from db.enums import DeliveryState, Proof, RevisionState
from db.models import AuditEvent, CommitmentRequest, Delivery, Revision
from db.session import unit_of_work
from db.views import read_view
from tests.support.builders.records import ARCHIVE, PACS, after, grade_study, queue_study

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from db.delivery.claims import DeliveryClaim

TRANSACTION = "2.25.77"
PICTURE, REPORT = "2.25.1.2", "2.25.1.3"
REPORTER = Reporter(PACS.ae_title, PACS.host)


def _claim(session: Session, at: float) -> DeliveryClaim:
    claim = claims.claim_delivery(
        session, session.scalars(select(Delivery.id)).one(), now=after(at), lease_s=60
    )
    assert claim is not None
    return claim


def _ask(session: Session, at: float, transaction_uid: str = TRANSACTION) -> DeliveryClaim:
    """Claim the delivery and record that commitment is about to be requested."""
    claim = _claim(session, at)
    statuses = {PICTURE: 0, REPORT: 0}
    assert commitments.open_request(
        session, claim, transaction_uid, now=after(at), statuses={} if claim.stored else statuses
    )
    return claim


def _report(*committed: str, uid: str = TRANSACTION, **failed: int) -> CommitmentReport:
    reasons = {PICTURE: failed["picture"]} if "picture" in failed else {}
    return CommitmentReport(uid, frozenset(committed), reasons)


@pytest.fixture
def revision_id(database_engine: Engine) -> str:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        grade_study(session, revision_id, PACS, at=40)
        return revision_id


@pytest.mark.parametrize("early", [False, True])
def test_a_study_is_committed_by_the_report(
    database_engine: Engine, revision_id: str, early: bool
) -> None:
    """After the worker has recorded the response to its request, or before."""
    with unit_of_work(database_engine) as session:
        claim = _ask(session, 50)
        waits = partial(commitments.await_report, now=after(51), timeout_s=600)
        if not early:
            assert waits(session, claim, TRANSACTION)
            (pending,) = read_view(session, "deliveries_pending")
            assert pending["status"] == "awaiting-commitment"
            assert pending["next_attempt_at"] == after(651)
        report = _report(PICTURE, REPORT)
        commitments.record_report(session, report, REPORTER, now=after(52))
        if early:
            assert waits(session, claim, TRANSACTION)
        delivery = session.scalars(select(Delivery)).one()
        assert (delivery.state, delivery.proof) == (DeliveryState.DELIVERED, "commitment")
        assert session.get_one(Revision, revision_id).state is RevisionState.COMMITTED
        assert outbox.due(session, now=after(9999)) == []
        # The archive did not receive the response and repeats its report.
        commitments.record_report(session, report, REPORTER, now=after(53))
        events = session.scalars(select(AuditEvent.event).order_by(AuditEvent.seq)).all()
        assert events[-4:] == ["delivery-done", "delivered", "committed", "commitment-report"]
        request = session.get_one(CommitmentRequest, TRANSACTION)
        assert (request.reporter_ae, request.reporter_address) == ("PACS", "127.0.0.1")


def test_without_a_report_commitment_is_requested_again_but_nothing_is_resent(
    database_engine: Engine, revision_id: str
) -> None:
    with unit_of_work(database_engine) as session:
        first = _ask(session, 50)
        assert not first.stored
        commitments.await_report(session, first, TRANSACTION, now=after(51), timeout_s=600)
        assert [i.target_id for i in outbox.due(session, now=after(651))] == [first.delivery_id]
        second = _ask(session, 651, "2.25.78")
        assert second.stored
        commitments.await_report(session, second, "2.25.78", now=after(652), timeout_s=600)
        # A late report on the first request is accepted like one on the second.
        commitments.record_report(session, _report(PICTURE, REPORT), REPORTER, now=after(653))
        assert session.get_one(Revision, revision_id).state is RevisionState.COMMITTED


def test_what_the_archive_does_not_commit_to_is_stored_again(
    database_engine: Engine, revision_id: str
) -> None:
    with unit_of_work(database_engine) as session:
        claim = _ask(session, 50)
        commitments.await_report(session, claim, TRANSACTION, now=after(51), timeout_s=600)
        commitments.record_report(session, _report(REPORT, picture=0x0112), REPORTER, now=after(52))
        delivery = session.scalars(select(Delivery)).one()
        assert (delivery.state, delivery.last_status) == (DeliveryState.PENDING, 0x0112)
        assert [i.target_id for i in outbox.due(session, now=after(62))] == [delivery.id]
        assert not _claim(session, 62).stored
        assert session.get_one(Revision, revision_id).state is RevisionState.GRADED


def test_a_final_failure_reason_parks_the_delivery(
    database_engine: Engine, revision_id: str
) -> None:
    with unit_of_work(database_engine) as session:
        claim = _ask(session, 50)
        commitments.record_report(session, _report(REPORT, picture=0x0122), REPORTER, now=after(52))
        delivery = session.scalars(select(Delivery)).one()
        assert (delivery.state, delivery.last_status) == (DeliveryState.PARKED, 0x0122)
        assert not claims.record_postponed(session, claim, now=after(53), error="", status=None)
        assert commands.rearm_deliveries(session, now=after(60)) == 1
        assert not _claim(session, 61).stored


def test_a_late_report_replaces_a_weaker_proof(database_engine: Engine, revision_id: str) -> None:
    with unit_of_work(database_engine) as session:
        claim = _ask(session, 50)
        claims.record_delivered(session, claim, now=after(51), proof=Proof.C_FIND, statuses={})
        assert session.get_one(Revision, revision_id).state is RevisionState.DELIVERED
        commitments.record_report(session, _report(PICTURE, REPORT), REPORTER, now=after(9e4))
        assert session.get_one(Revision, revision_id).state is RevisionState.COMMITTED
        assert session.scalars(select(Delivery.delivered_at)).one() == after(51)


def test_a_late_report_of_a_loss_has_the_objects_sent_again(
    database_engine: Engine, revision_id: str
) -> None:
    """Once: an archive that then contradicts its own C-FIND again needs a person."""

    def find_then_deny(transaction_uid: str, at: float) -> Delivery:
        with unit_of_work(database_engine) as session:
            claim = _ask(session, at, transaction_uid)
            assert not claim.stored
            claims.record_delivered(session, claim, now=after(at), proof=Proof.C_FIND, statuses={})
        with unit_of_work(database_engine) as session:
            report = _report(REPORT, uid=transaction_uid, picture=0x0112)
            commitments.record_report(session, report, REPORTER, now=after(at + 5))
            delivery = session.scalars(select(Delivery)).one()
            session.expunge(delivery)
        return delivery

    first = find_then_deny(TRANSACTION, 50)
    assert (first.state, first.attempt, first.proof) == (DeliveryState.PENDING, 0, None)
    second = find_then_deny("2.25.78", 60)
    assert (second.state, second.last_status) == (DeliveryState.PARKED, 0x0112)


def test_a_report_for_another_transaction_changes_nothing(
    database_engine: Engine, revision_id: str
) -> None:
    with unit_of_work(database_engine) as session:
        _ask(session, 50)
        strange = _report(PICTURE, REPORT, uid="2.25.99")
        commitments.record_report(session, strange, REPORTER, now=after(52))
        assert session.scalars(select(Delivery.state)).one() is DeliveryState.SENDING


def test_only_the_destination_of_a_delivery_settles_it(
    database_engine: Engine, revision_id: str
) -> None:
    with unit_of_work(database_engine) as session:
        _ask(session, 50)
    report = _report(PICTURE, REPORT)
    other = Reporter("PACS", "192.0.2.7")
    for reporter, known, refusal in (
        (other, {PACS.name: PACS}, ReportRefusal.NOT_AUTHORISED),
        (Reporter.called_by_node(ARCHIVE), {PACS.name: PACS}, ReportRefusal.NOT_AUTHORISED),
        (REPORTER, {ARCHIVE.name: ARCHIVE}, ReportRefusal.NOT_AUTHORISED),
        (REPORTER, {PACS.name: PACS}, None),
    ):
        assert commitments.settle(database_engine, report, reporter, known.get) is refusal
        with unit_of_work(database_engine, read_only=True) as session:
            proof = session.scalars(select(Delivery.proof)).one()
            assert (proof is None) is (refusal is not None)
    strange = _report(PICTURE, REPORT, uid="2.25.99")
    refusal = commitments.settle(database_engine, strange, REPORTER, {PACS.name: PACS}.get)
    assert refusal is ReportRefusal.UNKNOWN_TRANSACTION
