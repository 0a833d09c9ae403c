from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, select, text

from core.destinations import parse_destination
from core.reasons import Reason
from db import commands
from db.delivery import claims
from db.enums import Proof
from db.grading import leases
from db.grading.results import store_not_graded
from db.models import Delivery, StageTimingRow
from db.receiving.intake import record_instances
from db.receiving.quarantine import Choice, accept, discard
from db.refusals import Kind, Tally, count
from db.session import unit_of_work
from db.views import VIEWS, read_view
from tests.support.builders.records import (
    ARCHIVE,
    INTENDED_USE,
    PACS,
    STUDY,
    after,
    claim,
    grade_study,
    instance,
    not_graded_study,
    queue_study,
    reject_study,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


def _deliver(session: Session, at: float) -> None:
    for delivery_id in session.scalars(select(Delivery.id).where(Delivery.state == "pending")):
        held = claims.claim_delivery(session, delivery_id, now=after(at - 1), lease_s=60)
        assert held is not None
        claims.record_delivered(session, held, now=after(at), proof=Proof.C_FIND, statuses={})


def _row(session: Session, view: str, **where: Any) -> dict[str, Any]:
    (row,) = read_view(session, view, **where)
    return row


def test_the_described_columns_are_those_of_the_views(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        for name in VIEWS:
            actual = session.execute(text(f"SELECT * FROM {name}")).keys()
            assert tuple(actual) == tuple(VIEWS[name].c.keys())


def test_a_study_from_arrival_to_delivery(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        queued = queue_study(session)  # closed at 30 s
        held = claim(session, queued, at=32.5)  # lost, swept at 100 s
        assert _row(session, "worklist_results")["status"] == "processing"
        leases.sweep(session, now=after(100), max_attempts=3)
        del held
        grade_study(session, queued, PACS, at=110)  # claimed at 105 s
        row = _row(session, "worklist_results")
        assert (row["status"], row["rating"], row["sr_uid"]) == ("graded", None, None)
        assert _row(session, "deliveries_pending")["destination"] == PACS.name
        _deliver(session, at=120.25)
    with unit_of_work(database_engine, read_only=True) as session:
        assert _row(session, "worklist_results") == {
            "patient_id": "CANARY-7",
            "accession_number": "A1",
            "study_date": "20260301",
            "study_uid": STUDY,
            "status": "delivered",
            "rating": 2,
            "count_range": "11-20",
            "majority_rating": 1,
            "severity": "moderate-to-severe",
            "severity_probability": 0.8,
            "confidence": 0.9,
            "models_agree": True,
            "rating_model": "rating 1",
            "severity_model": "severity 1",
            "sr_uid": "2.25.1.3",
            "delivered_at": after(120.25),
            "reason": None,
            "caveat": INTENDED_USE.statement,
            "revision": 1,
        }
        turnaround = _row(session, "turnaround", study_uid=STUDY)
        assert (turnaround["revision"], turnaround["status"]) == (1, "delivered")
        seconds = {key: value for key, value in turnaround.items() if key.endswith("_s")}
        assert seconds == {
            "receiving_s": pytest.approx(30, abs=1e-3),
            "closed_s": pytest.approx(0, abs=1e-3),
            "queued_s": pytest.approx(2.5 + 5, abs=1e-3),
            "processing_s": pytest.approx(67.5 + 5, abs=1e-3),
            "graded_s": pytest.approx(10.25, abs=1e-3),
            "total_s": pytest.approx(120.25, abs=1e-3),
        }
        assert read_view(session, "failures") == read_view(session, "deliveries_pending") == []


def test_a_study_without_grade_shows_the_reason(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        not_graded = not_graded_study(revision_id, Reason.NO_SUITABLE_SERIES)
        store_not_graded(session, claim(session, revision_id), not_graded, now=after(40))
        row = _row(session, "worklist_results")
        assert (row["status"], row["reason"]) == ("rejected", "no-suitable-series")
        assert (row["rating"], row["models_agree"], row["delivered_at"]) == (None, None, None)


def test_a_report_without_grade_is_no_grade(database_engine: Engine) -> None:
    """It is not listed as a grade, neither alone nor after one; its delivery is listed."""
    asking = parse_destination("ARCHIVE@127.0.0.1:4243?notgraded=1")
    with unit_of_work(database_engine) as session:
        reject_study(session, queue_study(session, n=1), asking, at=40, uid="2.25.100")
        _deliver(session, at=50)
        row = _row(session, "worklist_results")
        assert (row["status"], row["reason"]) == ("rejected", "not-a-t2-brain")
        assert (row["sr_uid"], row["delivered_at"], row["rating"]) == (None, None, None)

        grade_study(session, queue_study(session, n=2, at=100), asking, at=140, uid="2.25.200")
        _deliver(session, at=150)
        reject_study(session, queue_study(session, n=3, at=200), asking, at=240, uid="2.25.300")
        pending = _row(session, "deliveries_pending")
        assert (pending["destination"], pending["revision"]) == (asking.name, 3)
        (delivery_id,) = session.scalars(select(Delivery.id).where(Delivery.state == "pending"))
        sent = claims.claim_delivery(session, delivery_id, now=after(241), lease_s=60)
        assert sent is not None
        claims.record_parked(session, sent, now=after(242), error="no such class", status=0xA900)
        failure = _row(session, "failures")
        assert (failure["kind"], failure["reason"]) == ("delivery", "delivery-parked")
        commands.rearm_deliveries(session, now=after(250))
        _deliver(session, at=260)
        row = _row(session, "worklist_results")
        assert (row["status"], row["reason"]) == ("rejected", "not-a-t2-brain")
        assert (row["rating"], row["sr_uid"], row["revision"]) == (2, "2.25.200.3", 2)
        assert row["delivered_at"] == after(150)
        assert read_view(session, "failures") == read_view(session, "deliveries_pending") == []
        last = _row(session, "turnaround", revision=3)
        assert (last["status"], last["graded_s"]) == ("rejected", None)
        assert float(last["total_s"]) == pytest.approx(40, abs=1e-3)


def test_the_delivered_grade_stays_until_a_later_one_is_delivered(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session, n=1), at=40, rating=1, uid="2.25.100")
        late = queue_study(session, n=2, at=100)
        row = _row(session, "worklist_results")
        assert (row["status"], row["rating"], row["revision"]) == ("queued", 1, 1)
        grade_study(session, late, at=140, rating=4, uid="2.25.200")
        row = _row(session, "worklist_results")
        assert (row["status"], row["rating"], row["revision"]) == ("delivered", 4, 2)
        assert (row["count_range"], row["sr_uid"]) == (">40", "2.25.200.3")


def test_failures_list_failed_studies_and_parked_deliveries(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        held = claim(session, queue_study(session, study="1.2.3"))
        leases.fail(session, held, now=after(50), code="model-answer-invalid", detail="sum 0.4")
        grade_study(session, queue_study(session), PACS, ARCHIVE, at=60)
        delivery_id = session.scalars(
            select(Delivery.id).where(Delivery.destination == PACS.name)
        ).one()
        sent = claims.claim_delivery(session, delivery_id, now=after(61), lease_s=60)
        assert sent is not None
        claims.record_parked(session, sent, now=after(62), error="no such class", status=0xA900)
        study, delivery = sorted(read_view(session, "failures"), key=lambda r: r["kind"])[::-1]
        assert (study["study_uid"], study["reason"], study["detail"]) == (
            "1.2.3",
            "model-answer-invalid",
            "sum 0.4",
        )
        assert (study["since"], study["attempts"], study["destination"]) == (after(50), 1, None)
        assert (delivery["destination"], delivery["detail"]) == (PACS.name, "no such class")
        pending = read_view(session, "deliveries_pending")
        assert {row["destination"]: row["status"] for row in pending} == {
            PACS.name: "parked",
            ARCHIVE.name: "pending",
        }
        assert _row(session, "deliveries_pending", status="parked")["last_status"] == 0xA900


def test_failures_list_what_waits_in_quarantine(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session))
        sent = [
            instance(1, content="1", received_at=after(60)),
            instance(2, content="2", received_at=after(62)),
            instance(4, patient_id="CANARY-8", received_at=after(61)),
        ]
        record_instances(session, sent)
        rows = sorted(read_view(session, "failures"), key=lambda row: str(row["reason"]))
        assert [(row["kind"], row["reason"], row["instances"]) for row in rows] == [
            ("quarantine", "conflict", 2),
            ("quarantine", "other-patient", 1),
        ]
        assert (rows[0]["since"], rows[0]["last_at"]) == (after(60), after(62))
        assert (rows[0]["study_uid"], rows[0]["revision"]) == (STUDY, None)
        discard(session, Choice(STUDY), operator="anna", now=after(70))
        assert read_view(session, "failures") == []


def test_no_grade_of_an_earlier_patient_is_shown(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session), uid="2.25.100")
        record_instances(session, [instance(4, patient_id="CANARY-8")])
        choice = Choice(STUDY)
        second = accept(session, choice, operator="anna", now=after(70)).revision_id
        row = _row(session, "worklist_results")
        assert (row["patient_id"], row["status"]) == ("CANARY-8", "queued")
        assert (row["rating"], row["sr_uid"], row["delivered_at"]) == (None, None, None)
        grade_study(session, second, at=120, rating=4, uid="2.25.200")
        row = _row(session, "worklist_results")
        assert (row["rating"], row["sr_uid"]) == (4, "2.25.200.3")


def test_model_usage_counts_studies_and_grades(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session, n=1), at=40, rating=1, uid="2.25.100")
        grade_study(session, queue_study(session, n=2, at=50), at=90, rating=4, uid="2.25.200")
        other = queue_study(session, study="1.2.3", at=100)
        grade_study(session, other, at=140, rating=4, uid="2.25.300")
        rating = _row(session, "model_usage", name="rating")
        assert (rating["studies"], rating["training_data"]) == (2, "synthetic")
        assert [rating[f"rating_{k}"] for k in range(5)] == [0, 1, 0, 0, 2]
        assert rating["moderate_to_severe"] == 0
        assert float(rating["mean_seconds"]) == pytest.approx(2.0)
        assert (rating["first_used_at"], rating["last_used_at"]) == (after(40), after(140))
        severity = _row(session, "model_usage", name="severity")
        assert (severity["moderate_to_severe"], severity["rating_4"]) == (3, 0)
        session.execute(delete(StageTimingRow))  # retention
        assert _row(session, "model_usage", name="rating") == rating


def test_refusals_are_counted_by_caller_and_reason(database_engine: Engine) -> None:
    caller = Kind("association-refused", "caller-not-on-allow-list", "CT", "192.0.2.7")
    connection = Kind("connection-refused", "too-many-connections", "", "192.0.2.7")
    with unit_of_work(database_engine) as session:
        count(session, {caller: Tally(2, after(1), after(2))})
        count(session, {connection: Tally(7, after(4), after(5))})
        assert _row(session, "refusals", event="association-refused") == {
            **caller._asdict(),
            "times": 2,
            "first_at": after(1),
            "last_at": after(2),
        }
        assert _row(session, "refusals", event="connection-refused")["calling_ae"] is None
