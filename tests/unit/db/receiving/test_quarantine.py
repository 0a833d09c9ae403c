from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from core.errors import EpvsError
from db.enums import QuarantineReason, RevisionState
from db.grading.results import load_closed_study
from db.models import AuditEvent, Instance, QuarantinedInstance, Revision, Study
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import record_instances
from db.receiving.quarantine import Choice, accept, discard, list_waiting
from db.session import unit_of_work
from tests.support.builders.records import (
    STUDY,
    after,
    claim,
    grade_study,
    instance,
    queue_study,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

OTHER: dict[str, Any] = {"patient_id": "CANARY-8"}


@pytest.fixture
def session(database_engine: Engine) -> Iterator[Session]:
    """A transaction with a graded study of three instances, numbered 1 to 3."""
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session))
        yield session


def accept_all(session: Session, **choice: Any) -> str:
    result = accept(session, Choice(STUDY, **choice), operator="anna", now=after(200))
    return result.revision_id


def contents(session: Session, revision_id: str) -> dict[str, str]:
    """SHA-256 of each instance of a revision, by its number."""
    uids = [i.sop_instance_uid for i in load_closed_study(session, revision_id).instances]
    return {uid.rpartition(".")[2]: session.get_one(Instance, uid).sha256 for uid in uids}


def waiting(session: Session) -> dict[tuple[str, str], int]:
    return {(row["reason"], row["calling_ae"]): row["instances"] for row in list_waiting(session)}


def states(session: Session) -> list[str]:
    return [str(row) for row in session.scalars(select(Revision.state).order_by(Revision.number))]


def test_the_content_of_a_conflict_replaces_the_stored_one(session: Session) -> None:
    first, changed = instance(1), instance(1, content="changed", received_at=after(90))
    record_instances(session, [changed])
    second = accept_all(session)
    assert contents(session, second)["1"] == changed.sha256
    assert list(contents(session, second)) == ["1", "2", "3"]
    (kept,) = session.scalars(select(QuarantinedInstance)).all()
    assert (kept.sha256, kept.resolution) == (first.sha256, "replaced")
    # Sent again, the earlier content is a conflict now, and may be accepted back.
    assert record_instances(session, [changed, first]) == ["duplicate", "conflict"]
    grade_study(session, second, uid="2.25.2", at=210)
    assert contents(session, accept_all(session))["1"] == first.sha256
    assert waiting(session) == {}


def test_a_corrected_patient_replaces_the_whole_study(session: Session) -> None:
    corrected = [instance(k, content="corrected", accession_number="A2", **OTHER) for k in (1, 2)]
    assert record_instances(session, corrected) == ["other-patient"] * 2
    second = accept_all(session)
    assert contents(session, second) == {"1": corrected[0].sha256, "2": corrected[1].sha256}
    study = session.get_one(Study, STUDY)
    assert (study.patient_id, study.accession_number) == ("CANARY-8", "A2")
    assert study.identity_revision == 2
    # Instance 3 has left the study: its content is known, and is not taken back silently.
    third = instance(3, content="corrected", accession_number="A2", **OTHER)
    assert record_instances(session, [third]) == ["conflict"]
    grade_study(session, second, uid="2.25.2", at=210)
    assert list(contents(session, accept_all(session))) == ["1", "2", "3"]


def test_a_corrected_accession_number_replaces_the_whole_study(session: Session) -> None:
    corrected = instance(1, content="corrected", accession_number="A2", calling_ae="PACS")
    assert record_instances(session, [corrected]) == ["other-accession"]
    second = accept_all(session)
    assert contents(session, second) == {"1": corrected.sha256}
    study = session.get_one(Study, STUDY)
    assert (study.patient_id, study.accession_number) == ("CANARY-7", "A2")
    assert (study.calling_ae, study.identity_revision) == ("PACS", 2)
    grade_study(session, second, uid="2.25.2", at=210)
    strays = [
        instance(8, accession_number="A3"),
        instance(9, accession_number="A4"),
    ]
    record_instances(session, strays)
    with pytest.raises(EpvsError, match="2 different Accession Numbers"):
        accept_all(session)


def test_a_study_without_patient_id_becomes_that_of_the_accepted_instances(
    database_engine: Engine,
) -> None:
    """Its caller included: it may have been opened by a stranger who wants the report."""
    with unit_of_work(database_engine) as session:
        stranger = instance(9, patient_id="", accession_number="", calling_ae="STRANGER")
        grade_study(session, queue_study(session, n=0, first=[stranger]))
        record_instances(session, [instance(1)])
        assert waiting(session) == {("no-patient-id", "SCANNER"): 1}
        assert list(contents(session, accept_all(session))) == ["1"]
        assert session.get_one(Study, STUDY).calling_ae == "SCANNER"


def test_instances_without_patient_id_join_the_study(session: Session) -> None:
    stray = instance(4, patient_id="", accession_number="", calling_ae="OTHER")
    record_instances(session, [stray])
    assert waiting(session) == {("no-patient-id", "OTHER"): 1}
    assert list(contents(session, accept_all(session))) == ["1", "2", "3", "4"]
    study = session.get_one(Study, STUDY)
    assert (study.patient_id, study.accession_number) == ("CANARY-7", "A1")
    assert (study.calling_ae, study.identity_revision) == ("SCANNER", 1)


def test_what_is_accepted_joins_a_study_that_is_receiving(session: Session) -> None:
    late = instance(4, received_at=after(100))
    record_instances(session, [late, instance(5, received_at=after(101), **OTHER)])
    result = accept(session, Choice(STUDY), operator="anna", now=after(102))
    assert (result.is_queued, result.n_instances) == (False, 1)
    assert states(session) == ["delivered", "receiving"]
    (closed,) = close_quiet_studies(session, now=after(200), quiet_period_s=0, max_open_s=1)
    assert list(contents(session, closed)) == ["5"]


def test_only_what_is_chosen_is_accepted_or_discarded(session: Session) -> None:
    strays = [
        instance(1, content="changed"),
        instance(4, patient_id="CANARY-8", calling_ae="A"),
        instance(5, patient_id="CANARY-9", calling_ae="B"),
    ]
    record_instances(session, strays)
    with pytest.raises(EpvsError, match="3 different Patient IDs"):
        accept_all(session)
    choice = Choice(STUDY, sop_instance_uid=strays[1].sop_instance_uid)
    assert discard(session, choice, operator="anna", now=after(100)) == 1
    assert discard(session, Choice(STUDY, calling_ae="B"), operator="anna", now=after(100)) == 1
    revision_id = accept_all(session, reason=QuarantineReason.CONFLICT)
    assert contents(session, revision_id)["1"] == strays[0].sha256
    assert waiting(session) == {}
    with pytest.raises(EpvsError, match="is in quarantine"):
        accept_all(session)


def test_of_several_contents_the_last_to_arrive_is_accepted(session: Session) -> None:
    sent = [instance(1, content=str(k), received_at=after(90 + k)) for k in range(3)]
    record_instances(session, sent)
    assert contents(session, accept_all(session))["1"] == sent[2].sha256
    assert waiting(session) == {}


def test_a_study_that_is_being_graded_is_left_alone(session: Session) -> None:
    record_instances(session, [instance(1, content="changed"), instance(4, received_at=after(90))])
    (revision_id,) = close_quiet_studies(session, now=after(99), quiet_period_s=0, max_open_s=1)
    with pytest.raises(EpvsError, match="still queued"):
        accept_all(session)
    claim(session, revision_id, at=100)
    with pytest.raises(EpvsError, match="still processing"):
        accept_all(session)


def test_an_instance_of_another_study_is_not_taken_from_it(session: Session) -> None:
    record_instances(session, [instance(1, study="1.2.3", sop_instance_uid=f"{STUDY}.5.1")])
    with pytest.raises(EpvsError, match=f"belongs to study {STUDY}"):
        accept(session, Choice("1.2.3"), operator="anna", now=after(200))
    discard(session, Choice("1.2.3"), operator="anna", now=after(200))


def test_an_instance_quarantined_by_an_earlier_version_is_sent_again(session: Session) -> None:
    changed = instance(1, content="changed")
    record_instances(session, [changed])
    session.execute(update(QuarantinedInstance).values(sop_class_uid="", patient_id=""))
    with pytest.raises(EpvsError, match="Send them again"):
        accept_all(session)
    assert record_instances(session, [changed]) == ["conflict"]
    assert contents(session, accept_all(session))["1"] == changed.sha256


def test_each_decision_is_in_the_audit_trail_with_its_operator(session: Session) -> None:
    record_instances(session, [instance(4, **OTHER), instance(1, content="changed")])
    discard(session, Choice(STUDY, QuarantineReason.CONFLICT), operator="anna", now=after(100))
    accept_all(session)
    events = session.scalars(
        select(AuditEvent).where(AuditEvent.event.startswith("quarantine-")).order_by("seq")
    ).all()
    assert [(event.event, event.study_uid, event.detail) for event in events] == [
        (
            "quarantine-discarded",
            STUDY,
            {"operator": "anna", "instances": 1, "reasons": {"conflict": 1}},
        ),
        (
            "quarantine-accepted",
            STUDY,
            {
                "operator": "anna",
                "instances": 1,
                "reasons": {"other-patient": 1},
                "replaced": 3,
                "other_identity": True,
            },
        ),
    ]
    assert states(session) == [RevisionState.DELIVERED, RevisionState.QUEUED]
