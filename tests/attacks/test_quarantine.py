"""Attacks that would hide a real study in quarantine, and what an operator sees and does."""

from __future__ import annotations

import json
import os
import pwd
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from core.results import ObjectKind
from db.enums import RevisionState
from db.grading.results import load_closed_study
from db.models import AuditEvent, Instance, QuarantinedInstance, ReportObjectRow, Revision, Study
from db.receiving.intake import record_instances
from db.session import unit_of_work
from db.views import read_view
from node import doctor
from node.cli import app
from tests.support.builders.records import (
    PACS,
    STUDY,
    after,
    grade_study,
    instance,
    queue_study,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

OPERATOR = pwd.getpwuid(os.getuid()).pw_name
FIRST: dict[str, Any] = {"patient_id": "CANARY-8", "calling_ae": "STRANGER"}
"""What an attacker sends before the PACS: one instance of the study, of another patient."""


@pytest.fixture
def engine(database_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A database that the command line uses too; it holds a study that an attacker opened."""
    monkeypatch.setenv("EPVS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("EPVS_DATABASE_URL", str(database_engine.url))
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session, n=0, first=[instance(9, **FIRST)])
        grade_study(session, revision_id, PACS, uid="2.25.7")
        sent = [instance(k, received_at=after(60 + k)) for k in (1, 2, 3)]
        assert record_instances(session, sent) == ["other-patient"] * 3
    return database_engine


def epvs_node(*arguments: str) -> str:
    """Output of a command that succeeds."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_quarantined_instances_are_seen_everywhere(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unit_of_work(engine) as session:
        (row,) = read_view(session, "failures", kind="quarantine")
    assert (row["study_uid"], row["reason"], row["instances"]) == (STUDY, "other-patient", 3)
    assert (row["since"], row["last_at"]) == (after(61), after(63))
    (listed,) = json.loads(epvs_node("quarantine", "list", "--json"))
    assert (listed["study_uid"], listed["instances"]) == (STUDY, 3)
    assert (listed["calling_ae"], listed["patient_id"]) == ("SCANNER", "CANARY-7")
    monkeypatch.setattr(doctor, "run_module", lambda *_, **__: [])  # there are no services
    (check,) = [
        check
        for check in json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
        if check["name"] == "quarantine"
    ]
    assert (check["ok"], check["warning"]) == (True, True)
    assert check["detail"] == "instances that wait: 3, of studies: 1"
    assert "epvs-node quarantine list" in check["remedy"]
    assert "other-patient" in epvs_node("show", STUDY)


def test_an_accepted_study_is_graded_under_its_own_identity(engine: Engine) -> None:
    epvs_node("quarantine", "accept", STUDY)
    with unit_of_work(engine) as session:
        study = session.get_one(Study, STUDY)
        assert (study.patient_id, study.calling_ae) == ("CANARY-7", "SCANNER")
        first, second = session.scalars(select(Revision).order_by(Revision.number)).all()
        assert (first.state, second.state) == (RevisionState.GRADED, RevisionState.QUEUED)
        closed = load_closed_study(session, second.id)
        # Without the instance of the other patient; the report names the old one as superseded.
        assert [i.sop_instance_uid for i in closed.instances] == [
            f"{STUDY}.5.{k}" for k in (1, 2, 3)
        ]
        old = session.scalars(
            select(ReportObjectRow.sop_instance_uid).where(
                ReportObjectRow.kind == ObjectKind.STRUCTURED_REPORT
            )
        ).all()
        assert [uid for _, uid in closed.superseded_reports] == list(old)
        (event,) = session.scalars(
            select(AuditEvent).where(AuditEvent.event == "quarantine-accepted")
        )
        assert event.detail == {
            "operator": OPERATOR,
            "instances": 3,
            "reasons": {"other-patient": 3},
            "replaced": 1,
            "other_identity": True,
        }
        # Nothing waits any more, and the grade of the other patient is not shown as this one's.
        assert read_view(session, "failures", kind="quarantine") == []
        (shown,) = read_view(session, "worklist_results")
        assert (shown["patient_id"], shown["rating"]) == ("CANARY-7", None)


def test_a_discarded_instance_stays_out_and_its_file_stays(engine: Engine) -> None:
    assert "3 instances" in epvs_node("quarantine", "discard", STUDY)
    with unit_of_work(engine) as session:
        rows = session.scalars(select(QuarantinedInstance)).all()
        assert {row.resolution for row in rows} == {"discarded"}
        assert len(session.scalars(select(Instance)).all()) == 1
        assert session.get_one(Study, STUDY).patient_id == "CANARY-8"
        (event,) = session.scalars(
            select(AuditEvent).where(AuditEvent.event == "quarantine-discarded")
        )
        assert (event.detail["operator"], event.detail["instances"]) == (OPERATOR, 3)
        # Sent again, it is not silently dropped.
        record_instances(session, [instance(1, received_at=after(500))])
        (row,) = read_view(session, "failures", kind="quarantine")
        assert (row["instances"], row["since"]) == (1, after(500))
    result = CliRunner().invoke(app, ["quarantine", "discard", "1.2.3"])
    assert result.exit_code == 1
