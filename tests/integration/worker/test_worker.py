"""The real worker, Redis and databases, with every fault that they have to survive."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pydicom
import pytest
from sqlalchemy import func, select

from db.models import AuditEvent, Delivery, ReportObjectRow, Revision
from db.session import unit_of_work
from tests.support.builders.made_study import encoded_data_set, receive_files
from tests.support.builders.sources import without_images
from tests.support.paths import ROOT
from tests.support.servers import poison
from tests.support.servers.destination import Fault, scripted_destination
from tests.support.servers.scripted_worker import SOFT_SHUTDOWN_VARIABLE, TIME_LIMITS
from worker.app import DELIVER, GRADE_REVISION, QUEUES, app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.servers.node import Node

GOOD, POISON, WAITING = "1.2.1", "1.2.2", "1.2.3"
OUTCOMES = {
    "1.2.4": "reject",
    "1.2.5": "fail",
    "1.2.6": "defect",
    "1.2.7": "unavailable",
}


def count_reports(node: Node, study_uid: str) -> int:
    with unit_of_work(node.engine, read_only=True) as session:
        return session.scalars(
            select(func.count())
            .select_from(ReportObjectRow)
            .join(Revision)
            .where(Revision.study_uid == study_uid, ReportObjectRow.kind == "sr")
        ).one()


def ring_again(node: Node, study_uid: str, times: int) -> None:
    with app.connection_for_write(node.redis.url) as connection:
        for _ in range(times):
            app.send_task(GRADE_REVISION, (node.revision(study_uid).id,), connection=connection)


def test_crashes_defects_and_outages_affect_only_their_own_study(node: Node) -> None:
    """A study that kills its process fails after three attempts; the others are graded."""
    for study_uid, act in {POISON: "die", **OUTCOMES}.items():
        node.script.write(study_uid, act)
        node.receive(study_uid)
    node.receive(GOOD)
    node.start_worker()
    node.start_housekeeper()
    node.wait_for_state(GOOD, "delivered")  # there is no destination
    node.wait_for_state("1.2.4", "rejected")
    for study_uid in (POISON, "1.2.5", "1.2.6"):
        node.wait_for_state(study_uid, "failed")
        assert node.script.tried(study_uid) == 3
        assert node.revision(study_uid).reason == "attempts-spent"
    assert "CANARY" not in node.log.read_text()
    assert "CANARY" not in (node.revision("1.2.6").reason_detail or "")

    # The model server was unavailable all the time: every attempt is repeated, none is charged.
    node.wait(lambda: node.script.tried("1.2.7") >= 4, "attempts without a model server")
    assert node.revision("1.2.7").attempt <= 1  # the one that may be running
    node.script.write("1.2.7", "")
    node.wait_for_state("1.2.7", "delivered")


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_poison_studies_fail_with_their_reason_while_others_are_graded(node: Node) -> None:
    """Hangs, memory, and the reading process: three attempts each, and the worker goes on."""
    reasons = {
        poison.HANG: "time-limit",
        poison.NATIVE_HANG: "lease-expired",
        poison.MEMORY: "unexpected",
        poison.READING_HANG: "time-limit",
        poison.READING_KILLED: "reading-interrupted",
    }
    studies = {act: f"1.4.{number}" for number, act in enumerate(reasons)}
    for act, study_uid in studies.items():
        node.script.write(study_uid, act)
        node.receive(study_uid)
    node.script.write(TIME_LIMITS, "2 4")
    worker = node.start_worker()
    node.start_housekeeper()
    for number in range(6):  # they come while the others hang
        node.receive(f"1.5.{number}")
        node.wait_for_state(f"1.5.{number}", "delivered")
    for act, study_uid in studies.items():
        node.wait_for_state(study_uid, "failed")
        revision = node.revision(study_uid)
        assert (node.script.tried(study_uid), revision.reason) == (3, "attempts-spent")
        expected = f"after 3 attempts; the last: {reasons[act]}"
        assert (revision.reason_detail or "").startswith(expected)
    assert worker.poll() is None
    children = psutil.Process(worker.pid).children(recursive=True)
    assert not [child for child in children if child.status() == psutil.STATUS_ZOMBIE]
    node.receive(GOOD)
    node.wait_for_state(GOOD, "delivered")


def test_the_study_of_a_killed_worker_is_graded_once_despite_repeated_notifications(
    node: Node,
) -> None:
    node.script.write(WAITING, "wait")
    node.receive(WAITING)
    node.start_worker()
    node.start_housekeeper()
    node.wait(lambda: node.script.tried(WAITING) == 1, "the first attempt")
    ring_again(node, WAITING, 5)
    node.kill_workers()
    node.start_worker()
    node.wait(lambda: node.script.tried(WAITING) == 2, "the attempt after the lease")
    ring_again(node, WAITING, 5)
    node.script.write(WAITING, "")
    node.wait_for_state(WAITING, "delivered")
    node.receive(GOOD)
    node.wait_for_state(GOOD, "delivered")  # earlier notifications have been received by now
    assert node.script.tried(WAITING) == 2
    assert node.revision(WAITING).attempt == 2
    assert count_reports(node, WAITING) == 1


def test_a_long_study_keeps_its_lease(node: Node) -> None:
    """Grading for twice the lease is one attempt: the heartbeat extends it."""
    node.script.write(WAITING, "wait")
    node.receive(WAITING)
    node.start_worker()
    node.start_housekeeper()
    node.wait(lambda: node.script.tried(WAITING) == 1, "the first attempt")
    first_end = node.revision(WAITING).lease_until
    assert first_end is not None
    node.wait(
        lambda: (
            (node.revision(WAITING).lease_until or first_end) - first_end > timedelta(seconds=3)
        ),
        "the lease to be extended",
    )
    node.script.write(WAITING, "")
    node.wait_for_state(WAITING, "delivered")
    assert node.script.tried(WAITING) == 1


def test_redis_may_lose_messages_and_stop(node: Node) -> None:
    """Flushed, then killed and restarted without data: every study is still graded."""
    node.start_housekeeper()
    node.receive("1.3.1")
    node.wait_for_state("1.3.1", "queued")
    with node.redis.client() as client:
        node.wait(lambda: client.llen("epvs") > 0, "the first notification")
        client.flushall()
        node.start_worker()
        node.wait_for_state("1.3.1", "delivered")

    node.script.write(WAITING, "wait")
    node.receive(WAITING)
    node.wait(lambda: node.script.tried(WAITING) == 1, "the attempt")
    node.redis.kill()
    node.receive("1.3.2")
    node.wait_for_state("1.3.2", "queued")
    node.script.write(WAITING, "")
    node.wait_for_state(WAITING, "delivered")  # without the broker
    node.redis.start()
    node.wait_for_state("1.3.2", "delivered")
    assert node.script.tried(WAITING) == 1


def test_the_stored_report_reaches_the_destination_unchanged(node: Node) -> None:
    with scripted_destination() as pacs:
        pacs.script.append(0xB000)
        node.set(destinations=pacs.destination.name)
        node.start_worker()
        node.start_housekeeper()
        node.receive(GOOD)
        node.wait_for_state(GOOD, "delivered")
    with unit_of_work(node.engine, read_only=True) as session:
        objects = session.scalars(select(ReportObjectRow)).all()
        (warning,) = session.scalars(
            select(AuditEvent).where(AuditEvent.event == "stored-with-warning")
        ).all()
        delivery = session.scalars(select(Delivery)).one()
    assert list(warning.detail["statuses"].values()) == ["0xB000"]
    assert delivery.proof == "store-status"
    for row in objects:
        kept = Path(row.path).read_bytes()
        assert hashlib.sha256(kept).hexdigest() == row.sha256
        assert pacs.data_sets[row.sop_instance_uid] == encoded_data_set(kept)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_report_without_grade_reaches_only_destinations_that_ask_for_it(
    node: Node, tmp_path: Path
) -> None:
    study = without_images(tmp_path)
    node.script.write(study.study_uid, "reject")

    def delivered_to() -> list[str]:
        with unit_of_work(node.engine, read_only=True) as session:
            events = session.scalars(
                select(AuditEvent).where(
                    AuditEvent.study_uid == study.study_uid, AuditEvent.event == "delivery-done"
                )
            )
            return [event.detail["destination"] for event in events]

    with scripted_destination() as asking, scripted_destination() as other:
        node.set(destinations=f"{asking.destination.name}?notgraded=1,{other.destination.name}")
        with unit_of_work(node.engine) as session:
            receive_files(session, study)
        node.start_worker()
        node.start_housekeeper()
        node.wait(lambda: delivered_to() == [asking.destination.name], "the report's delivery")
        node.receive(GOOD)  # the next study reaches both
        node.wait_for_state(GOOD, "delivered")
    assert node.state(study.study_uid) == "rejected"
    with unit_of_work(node.engine, read_only=True) as session:
        (report,) = session.scalars(
            select(ReportObjectRow).join(Revision).where(Revision.study_uid == study.study_uid)
        )
    assert report.sop_instance_uid not in other.arrivals
    kept = Path(report.path).read_bytes()
    assert asking.data_sets[report.sop_instance_uid] == encoded_data_set(kept)
    sr = pydicom.dcmread(report.path)
    assert sr.StudyInstanceUID == study.study_uid
    assert b"NGNOSERIES" in kept


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_slow_destination_receives_everything_once(node: Node) -> None:
    """Sending for twice the lease is one attempt: the heartbeat extends it."""
    with scripted_destination() as pacs:
        pacs.script.append(Fault.STORE_AND_ANSWER_LATE)
        node.set(destinations=pacs.destination.name, network_timeout_s=30.0)
        node.start_worker()
        node.start_housekeeper()
        node.receive(GOOD)
        node.wait(lambda: bool(pacs.arrivals), "the first object")
        started = time.monotonic()
        node.wait(lambda: time.monotonic() - started > 5, "more than two leases")
        pacs.release.set()
        node.wait_for_state(GOOD, "delivered")
    with unit_of_work(node.engine, read_only=True) as session:
        assert session.scalars(select(Delivery.attempt)).all() == [1]
    assert len(pacs.arrivals) == len(set(pacs.arrivals))


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_worker_finishes_its_study_after_sigterm(node: Node) -> None:
    node.script.write(WAITING, "wait")
    node.receive(WAITING)
    worker = node.start_worker(concurrency=1)
    node.start_housekeeper()
    node.wait(lambda: node.script.tried(WAITING) == 1, "the attempt")
    worker.send_signal(signal.SIGTERM)
    node.receive(GOOD)
    node.wait_for_state(GOOD, "queued")
    node.script.write(WAITING, "")
    assert worker.wait(timeout=30) == 0
    assert node.state(WAITING) == "delivered"
    assert node.script.tried(GOOD) == 0


def have_begun(node: Node, studies: Sequence[str], n: int) -> bool:
    return sum(map(node.script.tried, studies)) >= n


STOPPED_AS_IN_COMPOSE = {"REMAP_SIGTERM": "SIGQUIT", SOFT_SHUTDOWN_VARIABLE: "0.2"}


def test_a_worker_that_is_stopped_gives_its_study_to_another(node: Node) -> None:
    """Long before its lease expires, and without an attempt charged."""
    node.set(lease_s=600.0)
    node.script.write(WAITING, "wait")
    node.receive(WAITING)
    worker = node.start_worker(concurrency=1, environment=STOPPED_AS_IN_COMPOSE)
    node.start_housekeeper()
    node.wait(lambda: node.script.tried(WAITING) == 1, "the first attempt")
    node.start_worker(concurrency=1)
    worker.send_signal(signal.SIGTERM)
    worker.wait(timeout=30)
    node.wait(lambda: node.script.tried(WAITING) == 2, "the attempt of the other worker")
    assert node.revision(WAITING).attempt == 1
    node.script.write(WAITING, "")
    node.wait_for_state(WAITING, "delivered")


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_restarting_all_workers_under_load_repeats_at_most_what_is_in_hand(node: Node) -> None:
    node.set(lease_s=600.0)
    studies = [f"1.4.{k}" for k in range(16)]
    for study_uid in studies:
        node.script.write(study_uid, "slow")
        node.receive(study_uid)
    node.start_housekeeper()
    workers = [
        node.start_worker("--hostname", f"{k}@%h", concurrency=1, environment=STOPPED_AS_IN_COMPOSE)
        for k in range(2)
    ]
    for number, worker in enumerate(workers):
        node.wait(partial(have_begun, node, studies, 4 * (number + 1)), "some studies")
        node.start_worker(
            "--hostname", f"new{number}@%h", concurrency=1, environment=STOPPED_AS_IN_COMPOSE
        )
        worker.send_signal(signal.SIGTERM)
        worker.wait(timeout=30)
    for study_uid in studies:
        node.wait_for_state(study_uid, "delivered")
    assert all(count_reports(node, study_uid) == 1 for study_uid in studies)
    assert sum(map(node.script.tried, studies)) <= len(studies) + len(workers)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_grading_and_delivery_may_be_separate_workers(node: Node) -> None:
    """One that only delivers needs no models, and studies that wait do not delay it."""
    node.script.write(WAITING, "wait")
    with scripted_destination() as pacs:
        node.set(destinations=pacs.destination.name)
        node.start_worker("--queues", QUEUES[GRADE_REVISION], concurrency=1)
        node.start_housekeeper()
        node.receive(GOOD)
        node.wait_for_state(GOOD, "graded")
        node.receive(WAITING)
        node.wait_for_state(WAITING, "processing")
        node.script.write("models", "wrong")
        node.start_worker("--queues", QUEUES[DELIVER], concurrency=1)
        node.wait_for_state(GOOD, "delivered")
    assert node.state(WAITING) == "processing"


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_worker_with_wrong_models_does_not_start(node: Node) -> None:
    node.script.write("models", "wrong")
    node.receive(GOOD)
    node.start_housekeeper()
    worker = node.start_worker()
    assert worker.wait(timeout=60) == 1
    assert "the worker does not start: The rating model answers" in node.log.read_text()
    assert node.script.tried(GOOD) == 0


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_the_housekeeper_ends_after_sigterm(node: Node) -> None:
    keeper = subprocess.Popen(
        [sys.executable, "-m", "worker.housekeeper"], cwd=ROOT, env=node.environment()
    )
    node.receive(GOOD)
    node.wait_for_state(GOOD, "queued")
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(timeout=30) == 0
