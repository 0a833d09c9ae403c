"""Attacks that would send a report to a receiver that it is not for, or send it again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydicom.uid import ComprehensiveSRStorage, EnhancedMRImageStorage, SecondaryCaptureImageStorage
from sqlalchemy import select

from core.destinations import parse_destination
from db.models import Delivery, Instance, Revision, Study
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import Intake, record_instances
from db.session import unit_of_work
from tests.support.builders.records import STUDY, after, grade_study, instance, queue_study

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

SENDER = parse_destination("*@*:104")
OPENED_BY = "SCANNER@192.0.2.10:104"
STRANGER: dict[str, Any] = {"calling_ae": "STRANGER", "peer_address": "192.0.2.66"}


def destinations(session: Session) -> set[str]:
    return set(session.scalars(select(Delivery.destination)))


def states(session: Session) -> list[str]:
    return [str(row) for row in session.scalars(select(Revision.state).order_by(Revision.number))]


def test_only_the_caller_that_opened_the_study_is_its_sender(database_engine: Engine) -> None:
    """The stranger knows the Patient ID, and even joins the revision that is graded."""
    with unit_of_work(database_engine) as session:
        assert record_instances(session, [instance(8), instance(9, **STRANGER)]) == ["stored"] * 2
        revision_id = queue_study(session)
        grade_study(session, revision_id, SENDER)
        assert destinations(session) == {OPENED_BY}


@pytest.mark.parametrize(
    "other",
    [{"calling_ae": "STRANGER"}, {"peer_address": "192.0.2.66"}],
    ids=["title", "address"],
)
@pytest.mark.parametrize("late", [False, True])
def test_an_instance_without_patient_id_joins_only_a_study_of_its_caller(
    database_engine: Engine, other: dict[str, str], late: bool
) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session) if late else ""
        record_instances(session, [instance(1)])
        outcomes = record_instances(
            session,
            [instance(8, patient_id=""), instance(9, patient_id="", **other)],
        )
        assert outcomes == [Intake.STORED, Intake.NO_PATIENT_ID]
        if late:
            grade_study(session, revision_id, SENDER)
            assert destinations(session) == {OPENED_BY}


def test_a_study_without_patient_id_takes_none_from_a_stranger(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1, patient_id="")])
        assert record_instances(session, [instance(9, **STRANGER)]) == [Intake.NO_PATIENT_ID]
        assert session.get_one(Study, STUDY).patient_id == ""
        assert record_instances(session, [instance(2)]) == [Intake.STORED]
        assert session.get_one(Study, STUDY).patient_id == "CANARY-7"


@pytest.mark.parametrize("junk", [ComprehensiveSRStorage, SecondaryCaptureImageStorage])
def test_what_cannot_be_graded_does_not_regrade_a_finished_study(
    database_engine: Engine, junk: str
) -> None:
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session), SENDER)
        late = instance(8, sop_class_uid=junk, received_at=after(90))
        assert record_instances(session, [late]) == [Intake.STORED]
        assert record_instances(session, [late]) == [Intake.DUPLICATE]
        assert states(session) == ["graded"]
        mr = instance(9, sop_class_uid=EnhancedMRImageStorage, received_at=after(91))
        assert record_instances(session, [mr]) == [Intake.STORED]
        assert states(session) == ["graded", "receiving"]
        assert len(session.scalars(select(Instance)).all()) == 5


def test_a_study_may_begin_with_what_cannot_be_graded(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(8, sop_class_uid=ComprehensiveSRStorage)])
        assert states(session) == ["receiving"]


def test_a_stream_of_late_images_opens_few_revisions(database_engine: Engine) -> None:
    """One image every minute for six hours."""
    n_minutes = 360
    with unit_of_work(database_engine) as session:
        for minute in range(n_minutes):
            now = after(minute * 60)
            close_quiet_studies(session, now=now, quiet_period_s=30, max_open_s=5400)
            record_instances(session, [instance(minute, received_at=now)])
        assert len(session.scalars(select(Instance)).all()) == n_minutes
        assert len(states(session)) <= 6
