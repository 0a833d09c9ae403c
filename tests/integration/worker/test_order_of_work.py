"""What waits for what: nothing urgent for routine, no destination for another, no order lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from core.queues import DELIVERY, GRADING
from db import commands
from db.clock import current_time
from db.enums import DeliveryState, RevisionState
from db.models import AuditEvent, Delivery, GradeRow, ReportObjectRow, Revision
from db.session import unit_of_work
from tests.support.servers.destination import scripted_destination
from tests.support.servers.silent import silent_destination

if TYPE_CHECKING:
    from tests.support.servers.node import Node

BUSY, URGENT = "1.2.1", "1.2.2"


def count_delivered(node: Node, destination: str) -> int:
    with unit_of_work(node.engine, read_only=True) as session:
        rows = session.scalars(select(Delivery).where(Delivery.destination == destination))
        return sum(row.state is DeliveryState.DELIVERED for row in rows)


def seconds_to(node: Node, destination: str) -> list[float]:
    """Seconds from each grade to its delivery at a destination."""
    with unit_of_work(node.engine, read_only=True) as session:
        rows = session.execute(
            select(GradeRow.graded_at, Delivery.delivered_at)
            .join(Delivery, Delivery.revision_id == GradeRow.revision_id)
            .where(Delivery.destination == destination)
        )
        return [(delivered - graded).total_seconds() for graded, delivered in rows if delivered]


def test_an_urgent_study_is_graded_before_fifty_that_waited_longer(node: Node) -> None:
    node.script.write(BUSY, "wait")
    node.receive(BUSY)
    node.start_worker(concurrency=1)
    node.start_housekeeper()
    node.wait_for_state(BUSY, "processing")
    routine = [f"1.3.{k}" for k in range(50)]
    for study_uid in routine:
        node.receive(study_uid)
    node.wait_for_state(routine[-1], "queued")
    with node.redis.client() as client:
        node.wait(lambda: client.llen(GRADING) >= 50, "the notifications")
    node.receive(URGENT)
    with unit_of_work(node.engine) as session:
        urgent = session.scalars(select(Revision).where(Revision.study_uid == URGENT)).one()
        urgent.priority = 1
    node.wait_for_state(URGENT, "queued")
    node.script.write(BUSY, "")
    for study_uid in (URGENT, *routine):
        node.wait_for_state(study_uid, "delivered")  # there is no destination
    with unit_of_work(node.engine, read_only=True) as session:
        began = session.scalars(
            select(AuditEvent.study_uid)
            .where(AuditEvent.event == RevisionState.PROCESSING)
            .order_by(AuditEvent.seq)
        ).all()
    assert began == [BUSY, URGENT, *routine]


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
def test_a_silent_destination_delays_no_other(node: Node) -> None:
    """Though the attempts at it last for longer than all the others together."""
    studies = [f"1.3.{k}" for k in range(12)]
    with scripted_destination() as pacs, silent_destination() as silent:
        node.set(
            destinations=f"{silent.name},{pacs.destination.name}",
            network_timeout_s=30.0,
            lease_s=10.0,
        )
        node.start_worker("--queues", DELIVERY, "--hostname", "delivery@%h", concurrency=4)
        node.start_worker("--queues", GRADING, concurrency=1)
        node.start_housekeeper()
        for study_uid in studies:
            node.receive(study_uid)
        name = pacs.destination.name
        node.wait(lambda: count_delivered(node, name) == len(studies), "the reports")
        assert max(seconds_to(node, name)) < 10
        with unit_of_work(node.engine, read_only=True) as session:
            stuck = session.scalars(
                select(Delivery).where(
                    Delivery.destination == silent.name, Delivery.state == DeliveryState.SENDING
                )
            ).all()
        assert len(stuck) == node.settings.deliveries_per_destination
        assert count_delivered(node, silent.name) == 0


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_reports_of_one_study_arrive_in_the_order_of_its_revisions(node: Node) -> None:
    """Also when the first attempt at the older one fails."""
    with scripted_destination() as pacs:
        pacs.script.append(0xA700)
        node.set(destinations=pacs.destination.name)
        node.start_worker("--queues", GRADING, concurrency=1)
        node.start_housekeeper()
        node.receive(URGENT)
        node.wait_for_state(URGENT, "graded")
        with unit_of_work(node.engine) as session:
            newer = commands.reprocess(session, URGENT, now=current_time(session))

        def is_graded() -> bool:
            with unit_of_work(node.engine, read_only=True) as session:
                return session.get_one(Revision, newer).state is RevisionState.GRADED

        node.wait(is_graded, "the second revision")
        node.start_worker("--queues", DELIVERY, "--hostname", "delivery@%h", concurrency=4)
        node.wait(lambda: count_delivered(node, pacs.destination.name) == 2, "both reports")
        with unit_of_work(node.engine, read_only=True) as session:
            revisions = dict(
                session.execute(
                    select(ReportObjectRow.sop_instance_uid, Revision.number).join(
                        Revision, Revision.id == ReportObjectRow.revision_id
                    )
                ).all()
            )
    numbers = [revisions[uid] for uid in pacs.arrivals]
    assert numbers == sorted(numbers)
    assert set(numbers) == {1, 2}
