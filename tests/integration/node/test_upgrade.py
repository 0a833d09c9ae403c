"""A node of version 0.1.0, stopped in the middle of its work, is finished by this version."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from db import audit, commands, migrate
from db.clock import current_time
from db.enums import QuarantineReason
from db.models import AuditEvent, Delivery, Instance, ReportObjectRow, Revision
from db.receiving import quarantine
from db.receiving.quarantine import Choice
from db.session import unit_of_work
from db.stored_files import list_stored_files
from tests.support.builders.made_study import encoded_data_set
from tests.support.clients import upper_layer as ul
from tests.support.servers.destination import ScriptedDestination, scripted_destination
from tests.support.servers.node import Node
from tests.support.servers.receiver import run_receiver
from tests.support.upgrade.loading import LAST_MIGRATION, load_node
from tests.support.upgrade.make_node import ADDRESS, DESTINATIONS, PORT, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers.redis import RedisServer

DELIVERED, PARKED, AMBIGUOUS, IN_HAND, QUEUED = "1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.2.5"
REJECTED, FAILED, OPEN = "1.2.6", "1.2.7", "1.2.8"


@pytest.fixture
def node(tmp_path: Path, empty_database_url: str, redis_server: RedisServer) -> Iterator[Node]:
    """The node of version 0.1.0 after ``epvs-node migrate``."""
    folder = tmp_path if empty_database_url.startswith("sqlite") else tmp_path / "node"
    load_node(folder, empty_database_url)
    runtime_url = empty_database_url.replace("epvs_owner@", "epvs_node@")
    assert migrate.current_revision(empty_database_url) == LAST_MIGRATION
    migrate.upgrade(empty_database_url, runtime_url=runtime_url)
    made = Node(folder, runtime_url, redis_server)
    made.set(destinations=DESTINATIONS)
    yield made
    made.stop()


def send(port: int, study: str, number: int, *, pixel: int = 0) -> None:
    uid = f"{study}.5.{number}"
    with ul.peer(port, 20) as peer:
        peer.associate({1: (ul.MR_IMAGE, [ul.EXPLICIT])})
        peer.send(ul.store(1, encode(study, number, pixel=pixel), uid))
        answer = peer.response()
        assert answer is not None
        assert answer.status == 0
        peer.send(ul.RELEASE)


def states(node: Node, study: str) -> list[str]:
    with unit_of_work(node.engine, read_only=True) as session:
        found = select(Revision.state).where(Revision.study_uid == study).order_by(Revision.number)
        return [state.value for state in session.scalars(found)]


def test_the_files_and_the_audit_trail_of_an_upgraded_node_are_whole(node: Node) -> None:
    with unit_of_work(node.engine, read_only=True) as session:
        for file in list_stored_files(session):
            assert file.path == node.folder / file.name
            assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256
        assert audit.verify(session).ok
    assert states(node, IN_HAND) == ["processing", "queued"]
    assert [states(node, study) for study in (QUEUED, REJECTED, FAILED, OPEN)] == [
        ["queued"],
        ["rejected"],
        ["failed"],
        ["receiving"],
    ]


def test_an_upgraded_node_finishes_what_the_older_one_began(node: Node) -> None:
    with unit_of_work(node.engine, read_only=True) as session:
        seq, digest = audit.newest(session)
        n_instances = session.scalar(select(func.count()).select_from(Instance)) or 0
    with (
        scripted_destination(address=ADDRESS, port=PORT) as pacs,
        scripted_destination(address=ADDRESS, port=PORT + 1) as later,
    ):
        for file in (node.folder / "pacs").iterdir():
            pacs.data_sets[file.name] = file.read_bytes()
        had = dict(pacs.data_sets)
        with run_receiver(node.folder, database_url=str(node.settings.database_url)) as receiver:
            send(receiver.port, QUEUED, 1)  # again
            send(receiver.port, OPEN, 2)
            send(receiver.port, DELIVERED, 2, pixel=9)  # what 0.1.0 put into quarantine
        node.start_worker()
        node.start_housekeeper()
        for study in (DELIVERED, AMBIGUOUS, QUEUED, OPEN):
            node.wait(lambda: states(node, study) == ["delivered"], f"{study} delivered")  # noqa: B023
        node.wait(lambda: states(node, IN_HAND) == ["delivered"] * 2, "both revisions")
        assert states(node, PARKED) == ["graded"]
        # What waits for a person.
        with unit_of_work(node.engine) as session:
            now = current_time(session)
            assert commands.rearm_deliveries(session, None, now=now) == 1
            commands.reprocess(session, FAILED, now=now)
            choice = Choice(DELIVERED, QuarantineReason.CONFLICT, None, None)
            assert quarantine.accept(session, choice, operator="ann", now=now).n_instances == 1
        node.wait(lambda: states(node, PARKED) == ["delivered"], "the parked delivery")
        node.wait(lambda: states(node, FAILED) == ["failed", "delivered"], "the failed study")
        node.wait(lambda: states(node, DELIVERED) == ["delivered"] * 2, "the accepted instance")
    # The worker was killed before the PACS responded: what it had is sent again, unchanged.
    assert len(had.keys() & set(pacs.arrivals)) == 1
    assert {uid: pacs.data_sets[uid] for uid in had} == had
    assert_every_report_is_there_once(node, pacs, later)
    with unit_of_work(node.engine, read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(Instance)) == n_instances + 1
        (waiting,) = quarantine.list_waiting(session)
        assert waiting["reason"] == "other-patient"
        verdict = audit.verify(session, [audit.KnownEvent(seq, digest, "version 0.1.0")])
        assert verdict.ok, verdict.problem
        changes = session.scalars(select(AuditEvent.event).where(AuditEvent.seq > seq)).all()
    assert changes.count("graded") == 6


def assert_every_report_is_there_once(node: Node, *destinations: ScriptedDestination) -> None:
    """Each graded revision has one SR, which every destination got once, as it was stored."""
    with unit_of_work(node.engine, read_only=True) as session:
        graded = select(Revision.id).where(Revision.state == "delivered")
        rows: list[Any] = list(
            session.scalars(select(ReportObjectRow).where(ReportObjectRow.revision_id.in_(graded)))
        )
        n_revisions = len(session.scalars(graded).all())
        deliveries = session.scalars(select(Delivery.state)).all()
    assert {state.value for state in deliveries} == {"delivered"}
    assert len([row for row in rows if row.kind == "sr"]) == n_revisions == 9
    for row in rows:
        kept = encoded_data_set(Path(row.path).read_bytes())
        for destination in destinations:
            assert destination.data_sets[row.sop_instance_uid] == kept
            assert destination.arrivals.count(row.sop_instance_uid) <= 1
