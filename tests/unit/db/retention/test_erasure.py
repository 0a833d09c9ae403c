from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from core.errors import EpvsError
from db import audit
from db.delivery.claims import claim_delivery
from db.models import AuditEvent, Base, Delivery, FileRemoval, QuarantinedInstance, Study
from db.receiving.intake import Intake
from db.retention import erasure
from db.retention.removals import remove_listed
from db.session import unit_of_work
from tests.support.builders.records import STUDY, after, claim, queue_study
from tests.support.builders.stored_studies import delivered_study, grade, receive, received

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

OTHER = "1.2.840.99.2"
KEPT = {"alembic_version", "audit_events", "audit_head", "model_versions", "refusal_counts"}


def _erase(engine: Engine, study_uid: str = STUDY) -> None:
    with unit_of_work(engine) as session:
        erasure.require_privilege(session)
        erasure.erase_study(session, study_uid, operator="op", now=after(100))
    remove_listed(engine, limit=1000)


def _counts(engine: Engine) -> dict[str, int]:
    with unit_of_work(engine, read_only=True) as session:
        return {
            name: session.scalar(select(func.count()).select_from(table)) or 0
            for name, table in Base.metadata.tables.items()
        }


def test_rows_and_files_go_and_the_chain_stays(owner_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(owner_engine) as session:
        delivered_study(session, tmp_path, study=OTHER)
    before = _counts(owner_engine)
    kept = set(tmp_path.rglob("*.dcm"))
    with unit_of_work(owner_engine) as session:
        delivered_study(session, tmp_path)
        receive(session, received(tmp_path, 1, content="changed"))
    _erase(owner_engine)
    after_it = _counts(owner_engine)
    assert {n: c for n, c in after_it.items() if n not in KEPT} == {
        n: c for n, c in before.items() if n not in KEPT
    }
    assert set(tmp_path.rglob("*.dcm")) == kept
    with unit_of_work(owner_engine) as session:
        (event,) = session.scalars(select(AuditEvent).where(AuditEvent.event == "study-erased"))
        assert event.detail["files"] == 3 + 1 + 4
        assert event.detail["operator"] == "op"
        assert audit.verify(session).ok


def test_no_identifier_of_the_patient_remains_in_the_database(
    owner_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(owner_engine) as session:
        first = [received(tmp_path, 1, patient_id="CANARY-8", accession_number="CANARY-ACC")]
        queue_study(session, n=0, first=first)
    _erase(owner_engine)
    with unit_of_work(owner_engine, read_only=True) as session:
        for name, table in Base.metadata.tables.items():
            for row in session.execute(select(table)):
                assert "CANARY" not in str(row), name
    if owner_engine.dialect.name == "sqlite":
        erasure.checkpoint(owner_engine)
        assert not [p.name for p in tmp_path.glob("*.sqlite*") if b"CANARY" in p.read_bytes()]


def test_all_of_a_patient_is_found_also_in_anothers_quarantine(
    owner_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(owner_engine) as session:
        delivered_study(session, tmp_path, study=OTHER)
        wanted = received(tmp_path, 1, patient_id="CANARY-8")
        queue_study(session, n=0, first=[wanted])
        astray = received(tmp_path, 9, study=OTHER, patient_id="CANARY-8")
        assert receive(session, astray) == [Intake.OTHER_PATIENT]
    with unit_of_work(owner_engine) as session:
        found = erasure.find(session, patient_id="CANARY-8")
        assert found == erasure.Erasable((STUDY,), (OTHER,))
        erasure.require_privilege(session)
        erasure.erase_quarantined(session, OTHER, "CANARY-8", operator="op", now=after(99))
        assert session.scalars(select(QuarantinedInstance.id)).all() == []
        assert session.get(Study, OTHER) is not None
        with pytest.raises(EpvsError, match="No study here"):
            erasure.find(session, patient_id="NOBODY")
    _erase(owner_engine)
    remove_listed(owner_engine, limit=100)
    assert not wanted.path.exists()
    assert not astray.path.exists()


@pytest.mark.parametrize("at_work", ["receiving", "processing", "sending"])
def test_a_study_in_hand_is_not_erased(owner_engine: Engine, tmp_path: Path, at_work: str) -> None:
    with unit_of_work(owner_engine) as session:
        if at_work == "receiving":
            receive(session, received(tmp_path, 1))
        else:
            revision_id = queue_study(session, n=0, first=[received(tmp_path, 1)])
            if at_work == "processing":
                claim(session, revision_id)
            else:
                grade(session, tmp_path, revision_id)
                delivery_id = session.scalars(select(Delivery.id)).one()
                claim_delivery(session, delivery_id, now=after(40), lease_s=60)
    with pytest.raises(EpvsError, match=f"is {at_work}"):
        _erase(owner_engine)
    assert _counts(owner_engine)["instances"] == 1


def test_a_study_that_is_sent_again_is_a_new_one(owner_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(owner_engine) as session:
        delivered_study(session, tmp_path, n=1)
    _erase(owner_engine)
    again = received(tmp_path, 1)
    with unit_of_work(owner_engine) as session:
        assert receive(session, again) == [Intake.STORED]
    remove_listed(owner_engine, limit=100)
    assert again.path.exists()


def test_a_file_that_came_again_before_its_removal_is_kept(
    owner_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(owner_engine) as session:
        _, images, _ = delivered_study(session, tmp_path, n=1)
    with unit_of_work(owner_engine) as session:
        erasure.erase_study(session, STUDY, operator="op", now=after(100))
    with unit_of_work(owner_engine) as session:
        receive(session, received(tmp_path, 1))
    remove_listed(owner_engine, limit=100)
    assert images[0].exists()
    with unit_of_work(owner_engine) as session:
        assert session.scalars(select(FileRemoval.id)).all() == []


def test_the_role_of_the_node_may_not_erase(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        if database_engine.dialect.name == "sqlite":
            erasure.require_privilege(session)
        else:
            with pytest.raises(EpvsError, match="EPVS_DATABASE_OWNER_URL"):
                erasure.require_privilege(session)


def test_a_patient_id_of_two_issuers_needs_the_issuer(owner_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(owner_engine) as session:
        for study, issuer in ((STUDY, "NORTH"), (OTHER, "SOUTH")):
            receive(session, received(tmp_path, 1, study=study, issuer_of_patient_id=issuer))
    with unit_of_work(owner_engine) as session:
        with pytest.raises(EpvsError, match="'NORTH', 'SOUTH'"):
            erasure.find(session, patient_id="CANARY-7")
        found = erasure.find(session, patient_id="CANARY-7", issuer="SOUTH")
        assert found.study_uids == (OTHER,)
