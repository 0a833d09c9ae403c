"""Storage commitment: archives report to the worker, to a real receiver, or never."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from core.settings import load_settings
from db.delivery.claims import claim_delivery
from db.enums import DeliveryState
from db.models import Delivery, Revision
from db.receiving.closing import close_quiet_studies
from db.session import unit_of_work
from tests.support.builders.gradings import ScriptedGrading
from tests.support.builders.made_study import make_graded, receive_study
from tests.support.servers.dcmqrscp import run_dcmqrscp
from tests.support.servers.destination import Commits, ScriptedDestination, scripted_destination
from tests.support.servers.orthanc import start_orthanc
from tests.support.servers.receiver import AE_TITLE, ReceiverProcess, run_receiver, wait_until
from worker.delivery.attempt import COMMITMENT_ATTEMPTS, carry_out
from worker.grading.attempt import attempt_grading
from worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.grading.model_versions import Grading

_NUMBERS = count(1)


class Node(Services):
    """A worker's services beside a receiver, with one graded study for one destination."""

    def __init__(self, receiver: ReceiverProcess, destination: str) -> None:
        super().__init__(
            load_settings(
                data_dir=receiver.data_dir,
                database_url=receiver.database_url,
                destinations=f"{destination}?commit=1",
                network_timeout_s=5.0,
            )
        )
        self.study_uid = f"1.2.3.{next(_NUMBERS)}"
        with unit_of_work(self.engine) as session:
            receive_study(session, self.study_uid)
        with unit_of_work(self.engine) as session:
            (self.revision_id,) = close_quiet_studies(
                session, now=datetime.now(UTC), quiet_period_s=0, max_open_s=1
            )
        attempt_grading(self)

    def pin_models(self) -> Grading:
        return ScriptedGrading(lambda study, _: make_graded(study))

    def deliver(self) -> Delivery:
        """Make one attempt, regardless of when the delivery is due."""
        delivery_id = self.delivery().id
        with unit_of_work(self.engine) as session:
            session.get_one(Delivery, delivery_id).not_before = None
            claim = claim_delivery(
                session, delivery_id, now=datetime.now(UTC), lease_s=self.settings.lease_s
            )
        assert claim is not None
        carry_out(self, claim)
        return self.delivery()

    def delivery(self) -> Delivery:
        with unit_of_work(self.engine, read_only=True) as session:
            of_revision = Delivery.revision_id == self.revision_id
            return session.scalars(select(Delivery).where(of_revision)).one()

    def state(self) -> str:
        with unit_of_work(self.engine, read_only=True) as session:
            return session.get_one(Revision, self.revision_id).state


@pytest.fixture
def archive() -> Iterator[ScriptedDestination]:
    with scripted_destination(commits=True) as scripted:
        yield scripted


@pytest.fixture
def receiver(archive: ScriptedDestination, tmp_path: Path) -> Iterator[ReceiverProcess]:
    with run_receiver(tmp_path / "node", destinations=archive.destination.name) as process:
        archive.reports_to = (AE_TITLE, process.port)
        yield process


@pytest.fixture
def node(receiver: ReceiverProcess, archive: ScriptedDestination) -> Iterator[Node]:
    made = Node(receiver, archive.destination.name)
    yield made
    made.engine.dispose()


@pytest.mark.parametrize("how", [Commits.HERE, Commits.ELSEWHERE, Commits.ELSEWHERE_WITHOUT_ROLES])
def test_a_report_commits_the_study_on_either_association(
    archive: ScriptedDestination, node: Node, how: Commits
) -> None:
    archive.commitments.append(how)
    node.deliver()
    wait_until(lambda: node.state() == "committed")
    assert (node.delivery().proof, len(archive.arrivals)) == ("commitment", 2)
    wait_until(lambda: archive.reported == [0x0000])


def test_objects_that_the_archive_lost_are_stored_again(
    archive: ScriptedDestination, node: Node
) -> None:
    archive.commitments.append(Commits.NEVER)
    assert node.deliver().stored_at is not None
    picture, report = archive.arrivals
    del archive.data_sets[report]
    node.deliver()  # requests commitment again, stores nothing
    assert archive.arrivals == [picture, report]
    wait_until(lambda: node.delivery().stored_at is None)
    assert node.delivery().last_status == 0x0112
    node.deliver()
    wait_until(lambda: node.state() == "committed")
    assert archive.arrivals == [picture, report] * 2
    assert len(set(archive.requested)) == 3


def test_commitment_is_requested_again_after_a_transient_failure(
    archive: ScriptedDestination, node: Node
) -> None:
    archive.commitments.append(0x0110)
    delivery = node.deliver()
    assert (delivery.state, delivery.last_status) == (DeliveryState.PENDING, 0x0110)
    node.deliver()
    wait_until(lambda: node.state() == "committed")
    assert len(archive.arrivals) == 2


def test_an_archive_without_commitment_is_queried_instead(
    archive: ScriptedDestination, node: Node
) -> None:
    archive.commitments.append(0x0122)
    assert node.deliver().proof == "c-find"
    assert node.state() == "delivered"


def test_a_query_is_accepted_after_three_requests_without_a_report(
    archive: ScriptedDestination, node: Node
) -> None:
    archive.commitments.extend([Commits.NEVER] * 4)
    for _ in range(COMMITMENT_ATTEMPTS):
        assert node.deliver().proof is None
    assert node.deliver().proof == "c-find"
    assert len(archive.arrivals) == 2


def test_a_report_for_an_unknown_transaction_is_refused(
    archive: ScriptedDestination, node: Node
) -> None:
    archive.commitments.append(Commits.NEVER)
    node.deliver()
    archive.report("2.25.99")
    wait_until(lambda: archive.reported == [0x0115])
    assert node.delivery().proof is None


def test_a_report_of_another_archive_on_an_association_of_the_node_is_refused(
    receiver: ReceiverProcess, archive: ScriptedDestination, node: Node
) -> None:
    archive.commitments.append(Commits.NEVER)
    node.deliver()
    with scripted_destination(commits=True) as other:
        other.forged_transaction_uid = archive.requested[0]
        other.commitments.append(Commits.HERE)
        node_to_other = Node(receiver, other.destination.name)
        node_to_other.settings = load_settings(
            **node_to_other.settings.model_dump(exclude={"destinations"}),
            destinations=f"{archive.destination.name}?commit=1,{other.destination.name}?commit=1",
        )
        node_to_other.deliver()
        wait_until(lambda: other.reported == [0x0124])
        node_to_other.engine.dispose()
    assert node.delivery().proof is None
    (row,) = receiver.refusals("report-refused")
    assert (row["reason"], row["times"]) == ("reporter-not-authorised", 1)


def test_orthanc(tmp_path: Path) -> None:
    """With storage commitment allowed, and not: it then aborts the association."""
    pacs = start_orthanc(tmp_path / "pacs")
    destination = f"DEMOPACS@127.0.0.1:{pacs.dicom_port}"
    try:
        with run_receiver(tmp_path / "node", destinations=destination) as receiver:
            for allowed, proof in ((True, "commitment"), (False, "c-find")):
                modality = {
                    "AET": AE_TITLE,
                    "Host": "127.0.0.1",
                    "Port": receiver.port,
                    "AllowStorageCommitment": allowed,
                }
                pacs.rest("/modalities/epvs", modality, method="PUT")
                node = Node(receiver, destination)
                attempts = 1 if allowed else COMMITMENT_ATTEMPTS + 1
                for _ in range(attempts):
                    node.deliver()
                assert wait_until(lambda node=node: node.delivery().proof) == proof
                node.engine.dispose()
        assert len(pacs.instances("1.2.3")) == 4
    finally:
        pacs.stop()


def test_dcmqrscp(receiver: ReceiverProcess, tmp_path: Path) -> None:
    with run_dcmqrscp(tmp_path) as archive:
        node = Node(receiver, archive.name)
        assert node.deliver().proof == "c-find"
        assert node.state() == "delivered"
        node.engine.dispose()
