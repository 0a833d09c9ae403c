from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from core.destinations import parse_destination
from core.errors import Failed
from core.reasons import Reason
from core.results import ReportFailure, SeriesVerdict
from db.enums import RevisionState
from db.grading import leases
from db.grading.results import load_closed_study, store_graded, store_not_graded
from db.models import (
    AuditEvent,
    Base,
    Delivery,
    DeliveryObject,
    GradeRow,
    ImageRatingRow,
    ModelVersion,
    ReportObjectRow,
    Revision,
    SeriesVerdictRow,
    StageTimingRow,
)
from db.receiving.intake import record_instances
from db.session import unit_of_work
from tests.support.builders.records import (
    ARCHIVE,
    INTENDED_USE,
    PACS,
    SR3D_CLASS,
    SR_CLASS,
    STUDY,
    after,
    claim,
    grade_study,
    graded_study,
    instance,
    not_graded_study,
    queue_study,
    reject_study,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


def _sop_uids(session: Session, revision_id: str) -> list[str]:
    study = load_closed_study(session, revision_id)
    return [i.sop_instance_uid.rpartition(".")[2] for i in study.instances]


def test_a_revision_has_all_instances_up_to_its_closing(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        first = queue_study(session, n=2)
        second = queue_study(session, n=3, at=100)
        record_instances(session, [instance(4, received_at=after(200))])
        assert _sop_uids(session, first) == ["1", "2"]
        assert _sop_uids(session, second) == ["1", "2", "3"]
        study = load_closed_study(session, second)
        assert (study.study_uid, study.revision_number) == (STUDY, 2)
        assert study.instances[0].path == Path(f"/spool/{STUDY}.5.1.dcm")
        with pytest.raises(Failed, match="no revision"):
            load_closed_study(session, "unknown")


def test_a_report_supersedes_the_newest_earlier_one(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revisions = [queue_study(session, n=k, at=100.0 * k) for k in (1, 2, 3, 4)]
        assert load_closed_study(session, revisions[3]).superseded_reports == ()
        grade_study(session, revisions[0], PACS, at=500, uid="2.25.100")
        grade_study(session, revisions[1], PACS, at=500, uid="2.25.200")
        rejected = claim(session, revisions[2], at=500)
        not_graded = not_graded_study(revisions[2], Reason.NO_SUITABLE_SERIES)
        store_not_graded(session, rejected, not_graded, now=after(501))
        superseded = [load_closed_study(session, r).superseded_reports for r in revisions]
        assert superseded == [
            (),
            ((SR_CLASS, "2.25.100.3"), (SR3D_CLASS, "2.25.100.4")),
            ((SR_CLASS, "2.25.200.3"), (SR3D_CLASS, "2.25.200.4")),
            ((SR_CLASS, "2.25.200.3"), (SR3D_CLASS, "2.25.200.4")),
        ]


def test_a_report_without_grade_supersedes_and_is_superseded(database_engine: Engine) -> None:
    def reports(uid: str) -> tuple[tuple[str, str], ...]:
        return ((SR_CLASS, f"{uid}.3"), (SR3D_CLASS, f"{uid}.4"))

    with unit_of_work(database_engine) as session:
        revisions = [queue_study(session, n=k, at=100.0 * k) for k in range(1, 7)]
        reject_study(session, revisions[0], at=700, uid="2.25.100")
        grade_study(session, revisions[1], PACS, at=700, uid="2.25.200")
        reject_study(session, revisions[2], at=700, uid="2.25.300")
        reject_study(session, revisions[3], at=700, uid="2.25.400")
        grade_study(session, revisions[4], PACS, at=700, uid="2.25.500")
        superseded = [load_closed_study(session, r).superseded_reports for r in revisions]
        assert superseded == [
            (),
            reports("2.25.100"),
            reports("2.25.200"),
            # Some destinations did not receive the report without grade and still have the grade.
            reports("2.25.200") + reports("2.25.300"),
            reports("2.25.200") + reports("2.25.400"),
            reports("2.25.500"),
        ]


def test_a_grade_is_stored_with_verdicts_timings_and_report(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        grade_study(session, revision_id, PACS, ARCHIVE, at=40)
    with unit_of_work(database_engine) as session:
        assert session.get_one(Revision, revision_id).state is RevisionState.GRADED
        grade = session.get_one(GradeRow, revision_id)
        assert (grade.rating, grade.majority_rating, grade.count_range) == (2, 1, "11-20")
        assert (grade.severity, grade.models_agree) == ("moderate-to-severe", True)
        assert (grade.box_correlation, grade.saliency_mean) == (0.84, 1.5)
        assert (grade.caveat, grade.graded_at) == (INTENDED_USE.statement, after(40))
        names = {row.id: row.name for row in session.scalars(select(ModelVersion))}
        assert names[grade.rating_model_id] == "rating"
        assert names[grade.severity_model_id] == "severity"
        ratings = session.scalars(select(ImageRatingRow)).all()
        assert sorted((r.level, r.side, r.rating) for r in ratings) == [
            ("inferior", "L", 2),
            ("inferior", "R", 1),
            ("middle", "L", 1),
            ("middle", "R", 1),
            ("superior", "L", 1),
            ("superior", "R", 1),
        ]
        verdicts = session.scalars(select(SeriesVerdictRow)).all()
        assert {v.series_uid: v.reason for v in verdicts} == {
            f"{STUDY}.5": "selected",
            f"{STUDY}.6": "localizer",
        }
        timings = session.scalars(select(StageTimingRow).order_by(StageTimingRow.position))
        assert [(t.stage, t.seconds) for t in timings] == [
            ("selection", 0.5),
            ("registration", 1.5),
        ]
        report = session.scalars(select(ReportObjectRow).order_by(ReportObjectRow.position)).all()
        assert [row.kind for row in report] == ["pm", "sc", "sr", "sr"]
        assert report[2].sha256 == hashlib.sha256(b"2.25.1.3").hexdigest()
        assert report[2].path == "/reports/2.25.1.3"


def test_without_destinations_a_graded_revision_is_delivered(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        grade_study(session, revision_id, at=40)
        revision = session.get_one(Revision, revision_id)
        assert (revision.state, revision.delivered_at) == (RevisionState.DELIVERED, after(40))
        event = session.scalars(select(AuditEvent).where(AuditEvent.event == "delivered")).one()
        assert event.detail["reason"] == "no destination"


def test_a_study_that_is_not_graded_keeps_its_reason_and_verdicts(database_engine: Engine) -> None:
    verdict = SeriesVerdict(f"{STUDY}.5", Reason.MISSING_SLICE, "gap of 7.5 mm after slice 11", 19)
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        not_graded = not_graded_study(
            revision_id, Reason.NO_SUITABLE_SERIES, detail="1 series", verdicts=(verdict,)
        )
        assert store_not_graded(session, claim(session, revision_id), not_graded, now=after(40))
    with unit_of_work(database_engine) as session:
        revision = session.get_one(Revision, revision_id)
        assert (revision.state, revision.reason, revision.reason_detail) == (
            RevisionState.REJECTED,
            "no-suitable-series",
            "1 series",
        )
        row = session.scalars(select(SeriesVerdictRow)).one()
        assert (row.reason, row.detail, row.n_instances) == ("missing-slice", verdict.detail, 19)


def test_a_report_without_grade_goes_to_destinations_that_ask_for_it(
    database_engine: Engine,
) -> None:
    asking = parse_destination("ARCHIVE@127.0.0.1:4243?sr=comprehensive3d&notgraded=1")
    ris = parse_destination("hl7://127.0.0.1:2575?notgraded=1")
    # Its own entry does not ask for reports without grade; so it gets none as the sender, either.
    scanner = parse_destination("SCANNER@192.0.2.10:104")
    senders = parse_destination("*@*:104?notgraded=1")
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        reject_study(session, revision_id, PACS, asking, ris, scanner, senders)
    with unit_of_work(database_engine) as session:
        assert session.get_one(Revision, revision_id).state is RevisionState.REJECTED
        planned = session.execute(
            select(Delivery.destination, ReportObjectRow.sop_class_uid)
            .join(DeliveryObject, DeliveryObject.delivery_id == Delivery.id)
            .join(ReportObjectRow, ReportObjectRow.id == DeliveryObject.report_object_id)
        )
        chosen = {row.destination: row.sop_class_uid for row in planned}
        assert chosen == {asking.name: SR3D_CLASS, ris.name: SR_CLASS}
        event = session.scalars(select(AuditEvent).where(AuditEvent.event == "rejected")).one()
        assert event.detail == {
            "from": "processing",
            "reason": "not-a-t2-brain",
            "objects": ["2.25.9.3", "2.25.9.4"],
        }


def test_a_revision_is_rejected_although_its_report_could_not_be_built(
    database_engine: Engine,
) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        assert store_not_graded(
            session,
            claim(session, revision_id),
            not_graded_study(
                revision_id,
                report_failure=ReportFailure("report-invalid", "sr: no conclusion"),
            ),
            destinations=[parse_destination("PACS@127.0.0.1:104?notgraded=1")],
            now=after(40),
        )
        assert session.get_one(Revision, revision_id).state is RevisionState.REJECTED
        assert session.scalars(select(Delivery)).all() == []
        event = session.scalars(
            select(AuditEvent).where(AuditEvent.event == "report-not-made")
        ).one()
        assert (event.study_uid, event.revision_id) == (STUDY, revision_id)
        assert event.detail["code"] == "report-invalid"


def test_a_worker_with_an_expired_lease_stores_nothing(database_engine: Engine) -> None:
    def count() -> dict[str, int]:
        with unit_of_work(database_engine, read_only=True) as session:
            return {
                table.name: session.scalar(select(func.count()).select_from(table)) or 0
                for table in Base.metadata.tables.values()
            }

    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        stale = claim(session, revision_id, at=31)
        leases.sweep(session, now=after(91), max_attempts=3)
        current = claim(session, revision_id, at=92)
    before = count()
    graded = graded_study(revision_id)
    paths = [Path("/reports/x")] * 4
    with unit_of_work(database_engine) as session:
        assert not store_graded(
            session, stale, graded, paths=paths, destinations=[PACS], now=after(93)
        )
        assert not store_not_graded(session, stale, not_graded_study(revision_id), now=after(93))
        assert not store_not_graded(
            session,
            stale,
            not_graded_study(revision_id, report=graded.report),
            paths=paths,
            destinations=[parse_destination("PACS@127.0.0.1:104?notgraded=1")],
            now=after(93),
        )
    assert count() == before
    with unit_of_work(database_engine) as session:
        stored = [
            store_graded(session, current, graded, paths=paths, destinations=[PACS], now=after(94))
            for _ in range(2)
        ]
        assert stored == [True, False]
        assert session.scalar(select(func.count()).select_from(Delivery)) == 1
