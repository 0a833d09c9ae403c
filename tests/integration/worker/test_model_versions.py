"""Promotion, rollback and shadow grading with real workers, Triton, Redis and database, under load.

The networks are stand-ins. The versions of the rating model differ in their Haar enhancement too.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from sqlalchemy import select

from db import model_use
from db.enums import ModelRole
from db.models import (
    AuditEvent,
    GradeRow,
    ImageRatingRow,
    ModelVersion,
    ReportObjectRow,
    ShadowGrade,
    ShadowImageRating,
)
from db.receiving.intake import record_instances
from db.session import unit_of_work
from db.views import read_view
from node.operator import operator_name
from tests.support.builders.records import instance
from tests.support.builders.stand_in_models import (
    digests,
    rating_network,
    severity_network,
    write_model,
    write_stand_ins,
)
from tests.support.builders.synthetic_studies import copy_study, generate_synthetic_study

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.studies import ReceivedInstance
    from node.embedded.triton import EmbeddedTriton
    from tests.support.servers.node import Node

FACTS: dict[str, str] = {}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_synthetic_study(tmp_path_factory.mktemp("study"), seed=20)


@pytest.fixture
def models(node: Node, tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]) -> Path:
    """Two versions of each model, served; version 1 of both is reported, as an operator chose."""
    folder = write_stand_ins(tmp_path / "models")
    write_model(
        folder,
        "rating",
        rating_network(2),
        "2",
        preprocessing={"version": 1, "enhancement": "none"},
    )
    write_model(folder, "severity", severity_network(2), "2")
    node.set(
        models_dir=folder,
        triton_url=serve(folder).url,
        trusted_models=digests(folder),
        lease_s=30.0,
    )
    with unit_of_work(node.engine) as session:
        for model in ("rating", "severity"):
            model_use.promote(session, model, "1", FACTS, operator="tester", now=datetime.now(UTC))
    return folder


def receive(node: Node, study: Path, number: int) -> str:
    """Record a copy of the study as if the receiver had just stored it."""
    folder = node.folder / f"study-{number}"
    copy_study(study, folder)
    now = datetime.now(UTC)
    found: list[ReceivedInstance] = []
    for path in sorted(folder.iterdir()):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        found.append(
            instance(
                len(found),
                study=str(header.StudyInstanceUID),
                series_uid=str(header.SeriesInstanceUID),
                sop_instance_uid=str(header.SOPInstanceUID),
                sop_class_uid=str(header.SOPClassUID),
                path=path,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                patient_id=str(header.PatientID),
                accession_number=str(header.get("AccessionNumber", "")),
                received_at=now,
            )
        )
    with unit_of_work(node.engine) as session:
        record_instances(session, found)
    return found[0].study_uid


def command(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``epvs-node models``."""
    return subprocess.run(
        [sys.executable, "-m", "node", "models", *arguments],
        env=node.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def run(node: Node, *arguments: str) -> str:
    done = command(node, *arguments)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def rows(node: Node, statement: Any) -> list[Any]:
    with unit_of_work(node.engine, read_only=True) as session:
        return list(session.scalars(statement).all())


def graded_by(node: Node, study_uid: str) -> dict[str, str]:
    """The versions in the grade of a study's only revision, which was reported once."""
    revision = node.revision(study_uid)
    with unit_of_work(node.engine, read_only=True) as session:
        grade = session.get_one(GradeRow, revision.id)
        used = [
            session.get_one(ModelVersion, key)
            for key in (grade.rating_model_id, grade.severity_model_id)
        ]
        (report,) = session.scalars(
            select(ReportObjectRow).where(
                ReportObjectRow.revision_id == revision.id, ReportObjectRow.kind == "sr"
            )
        )
    content = Path(report.path).read_bytes()
    known = rows(node, select(ModelVersion))
    for model in known:  # the report names the weights that graded, and no others
        assert (model.weights_sha256.encode() in content) == (model.id in {m.id for m in used})
    return {model.name: model.version for model in used}


def events(node: Node, event: str) -> list[AuditEvent]:
    return rows(node, select(AuditEvent).where(AuditEvent.event == event).order_by(AuditEvent.seq))


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_promotion_under_load_loses_no_study_and_each_names_its_version(
    node: Node, models: Path, study: Path
) -> None:
    uids = [receive(node, study, number) for number in range(6)]
    node.start_worker(app="worker.app")
    node.start_housekeeper()
    node.wait(lambda: len(events(node, "processing")) >= 3, "two studies in hand, one finished")
    run(node, "promote", "rating", "2")
    node.wait(lambda: len(events(node, "delivered")) == len(uids), "every study")
    late = receive(node, study, len(uids))
    node.wait_for_state(late, "delivered")

    claims = {event.study_uid: event.detail["models"] for event in events(node, "processing")}
    assert len(events(node, "processing")) == len(uids) + 1  # nothing was graded twice
    found = {uid: graded_by(node, uid) for uid in [*uids, late]}
    assert found == claims  # what an attempt began with
    assert {versions["rating"] for versions in found.values()} == {"1", "2"}
    assert {versions["severity"] for versions in found.values()} == {"1"}
    assert found[late]["rating"] == "2"
    (promoted,) = [e for e in events(node, "model-promoted") if e.detail["version"] == "2"]
    in_hand = [e for e in events(node, "processing") if e.seq < promoted.seq]
    assert {e.detail["models"]["rating"] for e in in_hand} == {"1"}
    assert promoted.detail["operator"] == operator_name()

    # --- in shadow: the version reported before, whose crops are enhanced otherwise
    run(node, "shadow", "rating", "1")
    run(node, "shadow", "severity", "2")
    shadowed = receive(node, study, len(uids) + 1)
    node.wait(lambda: len(rows(node, select(ShadowGrade))) == 2, "the shadow versions")
    revision = node.revision(shadowed)
    assert graded_by(node, shadowed) == {"rating": "2", "severity": "1"}
    rating = select(ShadowGrade).where(ShadowGrade.model == "rating")
    (shadow,) = rows(node, rating)
    assert (shadow.version, shadow.failure) == ("1", None)
    # The images are the same as those that version 1 rated while it was reported.
    first = node.revision(next(uid for uid in uids if found[uid]["rating"] == "1"))
    reported = {
        (row.level, row.side): (row.rating, round(row.probability, 4))
        for row in rows(node, select(ImageRatingRow).where(ImageRatingRow.revision_id == first.id))
    }
    in_shadow = {
        (row.level, row.side): (row.rating, round(row.probability, 4))
        for row in rows(node, select(ShadowImageRating))
    }
    assert in_shadow == reported
    assert shadow.probability == pytest.approx(
        rows(node, select(GradeRow).where(GradeRow.revision_id == first.id))[0].confidence
    )
    # After the result: first graded and delivered, then the shadow.
    order = rows(
        node,
        select(AuditEvent.event)
        .where(AuditEvent.revision_id == revision.id)
        .order_by(AuditEvent.seq),
    )
    assert order[-4:] == ["graded", "delivered", "shadow-graded", "shadow-graded"]
    with unit_of_work(node.engine, read_only=True) as session:
        pairs = {row["model"]: row for row in read_view(session, "shadow_results")}
        usage = {(r["name"], r["version"]): r["studies"] for r in read_view(session, "model_usage")}
    assert (pairs["rating"]["reported_version"], pairs["rating"]["shadow_version"]) == ("2", "1")
    assert pairs["rating"]["shadow_rating"] == shadow.rating
    assert usage.get(("severity", "2")) is None  # predicted, never reported
    listed = {(r["model"], r["version"]): r for r in json.loads(run(node, "list", "--json"))}
    assert listed["severity", "2"]["role"] == "shadow"
    assert listed["severity", "2"]["studies_in_shadow"] == 1
    assert listed["rating", "2"]["role"] == "reported"
    assert listed["rating", "2"]["operator"] == operator_name()
    assert listed["rating", "1"]["studies_reported"] == usage["rating", "1"]

    # --- back, without a restart; the shadow that is reported again ends
    run(node, "rollback", "rating")
    run(node, "end-shadow", "severity")
    last = receive(node, study, len(uids) + 2)
    node.wait_for_state(last, "delivered")
    assert graded_by(node, last) == {"rating": "1", "severity": "1"}
    assert len(rows(node, select(ShadowGrade))) == 2


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_version_that_fails_its_self_test_is_neither_promoted_nor_used(
    node: Node, models: Path, study: Path
) -> None:
    golden = models / "severity" / "2" / "golden.npz"
    described = models / "severity" / "2" / "model.json"
    info = json.loads(described.read_text())
    # As after a faulty engine build: files and digests are right, the predictions are not.
    wrong = models / "severity" / "1" / "golden.npz"
    golden.write_bytes(wrong.read_bytes())
    info["golden_sha256"] = hashlib.sha256(golden.read_bytes()).hexdigest()
    described.write_text(json.dumps(info))
    assert "model-not-trusted" in command(node, "promote", "severity", "2").stderr
    node.set(trusted_models=digests(models))
    for role in ("promote", "shadow"):
        assert "golden-mismatch" in command(node, role, "severity", "2").stderr

    # A shadow version that fails is recorded, and the study is graded.
    with unit_of_work(node.engine) as session:
        model_use.shadow(session, "severity", "2", FACTS, operator="t", now=datetime.now(UTC))
    node.start_worker(app="worker.app")
    node.start_housekeeper()
    first = receive(node, study, 1)
    node.wait(lambda: bool(rows(node, select(ShadowGrade))), "the record of the shadow")
    assert node.state(first) == "delivered"
    (shadow,) = rows(node, select(ShadowGrade))
    assert (shadow.failure, shadow.severity) == ("golden-mismatch", None)
    (failed,) = events(node, "shadow-failed")
    assert failed.detail == {"model": "severity", "version": "2", "code": "golden-mismatch"}

    # A reported version that fails: no study is taken, until another is reported.
    with unit_of_work(node.engine) as session:
        model_use.promote(session, "severity", "2", FACTS, operator="t", now=datetime.now(UTC))
    second = receive(node, study, 2)
    node.wait_for_state(second, "queued")
    node.wait(lambda: "no study is taken code=golden-mismatch" in node.log.read_text(), "the log")
    assert node.state(second) == "queued"
    assert node.revision(second).attempt == 0
    run(node, "rollback", "severity")
    node.wait_for_state(second, "delivered")
    assert graded_by(node, second) == {"rating": "1", "severity": "1"}


def test_the_first_worker_records_the_highest_versions(
    node: Node, tmp_path: Path, serve: Callable[[Path], EmbeddedTriton], study: Path
) -> None:
    folder = write_stand_ins(tmp_path / "models")
    write_model(folder, "rating", rating_network(2), "10")
    node.set(models_dir=folder, triton_url=serve(folder).url, trusted_models=digests(folder))
    node.start_worker(app="worker.app", concurrency=1)
    node.start_housekeeper()
    uid = receive(node, study, 1)
    node.wait_for_state(uid, "delivered")
    assert graded_by(node, uid) == {"rating": "10", "severity": "1"}
    with unit_of_work(node.engine, read_only=True) as session:
        assert model_use.read_versions(session, ModelRole.REPORTED) == {
            "rating": "10",
            "severity": "1",
        }
    assert [e.detail["reason"] for e in events(node, "model-promoted")] == ["first-worker"] * 2
