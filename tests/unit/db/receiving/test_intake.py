from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.uid import ComprehensiveSRStorage
from sqlalchemy import func, select

from db.enums import RevisionState
from db.models import (
    AuditEvent,
    Instance,
    QuarantinedInstance,
    ReportObjectRow,
    Revision,
    Study,
)
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import Intake, record_instances
from db.session import unit_of_work
from tests.support.builders.records import STUDY, after, claim, grade_study, instance, queue_study

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

STORED, DUPLICATE = Intake.STORED, Intake.DUPLICATE
CONFLICT, OTHER_PATIENT = Intake.CONFLICT, Intake.OTHER_PATIENT
OTHER_ACCESSION = Intake.OTHER_ACCESSION


def _count(session: Session, model: type) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0


def test_a_batch_of_several_studies_opens_each_once(database_engine: Engine) -> None:
    batch = [instance(1), instance(1, study="1.2.3"), instance(2), instance(2, study="1.2.3")]
    with unit_of_work(database_engine) as session:
        assert record_instances(session, batch) == [STORED] * 4
        assert record_instances(session, []) == []
    with unit_of_work(database_engine) as session:
        study = session.get_one(Study, STUDY)
        assert (study.patient_id, study.accession_number, study.study_date) == (
            "CANARY-7",
            "A1",
            "20260301",
        )
        assert study.first_received_at == after(0)
        assert [r.number for r in session.scalars(select(Revision))] == [1, 1]
        assert session.get_one(Instance, f"{STUDY}.5.2").size_bytes == 300_000


def test_a_resend_while_receiving_only_extends_the_quiet_period(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1)])
        again = instance(1, received_at=after(20), path="/spool/elsewhere")
        assert record_instances(session, [again]) == [DUPLICATE]
    with unit_of_work(database_engine) as session:
        assert session.scalars(select(Revision)).one().last_received_at == after(20)
        assert session.get_one(Instance, f"{STUDY}.5.1").path == f"/spool/{STUDY}.5.1.dcm"
        assert _count(session, AuditEvent) == 1


def test_a_report_of_this_node_that_is_sent_back_makes_no_new_work(database_engine: Engine) -> None:
    """A PACS may forward everything it stores without having its studies graded again."""
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session))
        report = session.scalars(select(ReportObjectRow.sop_instance_uid)).first()
        back = instance(
            4,
            received_at=after(100),
            sop_instance_uid=report or "",
            sop_class_uid=ComprehensiveSRStorage,
        )
        assert record_instances(session, [back]) == [Intake.OWN]
        assert _count(session, Revision) == 1
        late = instance(5, received_at=after(101))
        assert record_instances(session, [back, late]) == [Intake.OWN, STORED]
        assert _count(session, Revision) == 2


def test_a_resend_of_a_closed_study_makes_no_new_work(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        queue_study(session)
        again = [instance(k, received_at=after(100)) for k in (1, 2, 3)]
        assert record_instances(session, again) == [DUPLICATE] * 3
        assert not close_quiet_studies(session, now=after(9999), quiet_period_s=30, max_open_s=5400)
        revision = session.scalars(select(Revision)).one()
        assert (revision.state, revision.last_received_at) == (RevisionState.QUEUED, after(0))


def test_other_bytes_under_a_known_uid_are_quarantined_and_audited_once(
    database_engine: Engine,
) -> None:
    changed = instance(1, content="one pixel changed", path="/spool/changed")
    with unit_of_work(database_engine) as session:
        assert record_instances(session, [instance(1), changed]) == [STORED, CONFLICT]
        assert record_instances(session, [changed]) == [CONFLICT]
    with unit_of_work(database_engine) as session:
        kept = session.scalars(select(QuarantinedInstance)).one()
        assert (kept.path, kept.sha256) == ("/spool/changed", changed.sha256)
        assert session.get_one(Instance, f"{STUDY}.5.1").sha256 == instance(1).sha256
        event = session.scalars(
            select(AuditEvent).where(AuditEvent.event == "instance-quarantined")
        ).one()
        assert event.detail == {
            "reason": "conflict",
            "sop_instance_uid": changed.sop_instance_uid,
            "sha256": changed.sha256,
        }


def test_instances_of_another_patient_are_quarantined(database_engine: Engine) -> None:
    stray = instance(2, patient_id="CANARY-8")
    with unit_of_work(database_engine) as session:
        assert record_instances(session, [instance(1), stray]) == [STORED, OTHER_PATIENT]
        assert record_instances(session, [stray]) == [OTHER_PATIENT]
        # An empty Patient ID matches any study.
        assert record_instances(session, [instance(3, patient_id="")]) == [STORED]
        assert record_instances(session, [instance(2)]) == [STORED]
    with unit_of_work(database_engine) as session:
        kept = session.scalars(select(QuarantinedInstance)).one()
        assert (kept.reason, kept.sha256) == ("other-patient", stray.sha256)
        events = select(AuditEvent).where(AuditEvent.event == "instance-quarantined")
        assert "CANARY" not in str(session.scalars(events).one().detail)


def test_patients_are_told_apart_within_one_batch(database_engine: Engine) -> None:
    batch = [instance(2), instance(3, patient_id="CANARY-8"), instance(4, patient_id="")]
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1)])
        assert record_instances(session, batch) == [STORED, OTHER_PATIENT, STORED]


def test_instances_with_another_accession_number_are_quarantined(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1)])
        batch = [instance(2), instance(3, accession_number="A2"), instance(4, accession_number="")]
        assert record_instances(session, batch) == [STORED, OTHER_ACCESSION, STORED]


def test_a_study_adopts_the_first_patient_id_that_is_not_empty(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        assert record_instances(session, [instance(1, patient_id="")]) == [STORED]
        assert record_instances(session, [instance(2)]) == [STORED]
        assert session.get_one(Study, STUDY).patient_id == "CANARY-7"
        stray = instance(3, patient_id="CANARY-8")
        assert record_instances(session, [stray]) == [OTHER_PATIENT]


def test_a_study_adopts_the_first_accession_number_that_is_not_empty(
    database_engine: Engine,
) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1, accession_number="")])
        stray = instance(2, patient_id="CANARY-8", accession_number="A9")
        record_instances(session, [stray, instance(3)])
        assert session.get_one(Study, STUDY).accession_number == "A1"


def test_a_known_instance_claimed_for_another_study_is_a_conflict(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1)])
        stray = instance(1, study="1.2.3", sop_instance_uid=f"{STUDY}.5.1")
        assert record_instances(session, [stray]) == [CONFLICT]
        assert session.scalars(select(Revision.study_uid)).all() == [STUDY]


def test_a_late_instance_opens_the_next_revision_even_while_grading(
    database_engine: Engine,
) -> None:
    with unit_of_work(database_engine) as session:
        claim(session, queue_study(session))
        late = [instance(4, received_at=after(90)), instance(1, received_at=after(91))]
        assert record_instances(session, late) == [STORED, DUPLICATE]
        assert record_instances(session, [instance(5, received_at=after(92))]) == [STORED]
        rows = session.scalars(select(Revision).order_by(Revision.number)).all()
        assert [(r.number, r.state, r.last_received_at) for r in rows] == [
            (1, RevisionState.PROCESSING, after(0)),
            (2, RevisionState.RECEIVING, after(92)),
        ]


def test_text_that_a_database_would_refuse_is_stored_without_its_bad_characters(
    database_engine: Engine,
) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(
            session, [instance(1, patient_id="A\0B\udcff", accession_number="ß" * 999)]
        )
    with unit_of_work(database_engine) as session:
        study = session.get_one(Study, STUDY)
        assert (study.patient_id, study.accession_number) == ("AB?", "ß" * 999)


def test_the_most_urgent_instance_gives_the_revision_its_priority(
    database_engine: Engine,
) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1), instance(2, priority=9)])
        revision = session.scalars(select(Revision)).one()
        assert revision.priority == 5
        assert record_instances(session, [instance(3, priority=2)]) == [STORED]
        session.refresh(revision)
        assert revision.priority == 2
        conflict = instance(3, content="other", priority=1)
        assert record_instances(session, [conflict]) == [CONFLICT]
        session.refresh(revision)
        assert revision.priority == 2  # what is in quarantine decides nothing
