"""Many receivers and workers at once, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from db import audit
from db.delivery import claims
from db.enums import Proof, RevisionState
from db.grading.leases import claim_revision
from db.grading.results import load_closed_study
from db.models import AuditEvent, Delivery, Instance, QuarantinedInstance, Revision, Study
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import Intake, record_instances
from db.refusals import Kind, Tally, count
from db.session import create_engine, unit_of_work
from db.views import read_view
from tests.support.builders.records import (
    ARCHIVE,
    PACS,
    STUDY,
    after,
    grade_study,
    instance,
    queue_study,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sqlalchemy import Engine

    from tests.support.servers.postgres import PostgresServer

THREADS = 8


def _at_once(work: Callable[[int], Any]) -> list[Any]:
    """Run `work` in eight threads that start together."""
    barrier = Barrier(THREADS)

    def run(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def _verify(engine: Engine) -> audit.AuditVerdict:
    with unit_of_work(engine, read_only=True) as session:
        return audit.verify(session)


def test_eight_associations_sending_one_study_lose_nothing(database_engine: Engine) -> None:
    def receive(thread: int) -> list[Intake]:
        outcomes = []
        for batch in range(5):
            # Every batch: two unique instances, one that all threads send, one conflict.
            numbers = [1000 * thread + 10 * batch + k for k in (1, 2)]
            received = [
                *(instance(n, received_at=after(batch)) for n in numbers),
                instance(9000 + batch, received_at=after(batch)),
                instance(9100 + batch, content=str(thread), received_at=after(batch)),
                instance(1, study=f"1.2.{thread}.{batch}", received_at=after(batch)),
            ]
            with unit_of_work(database_engine) as session:
                outcomes += record_instances(session, received)
        return outcomes

    outcomes = [outcome for part in _at_once(receive) for outcome in part]
    own, shared, studies = THREADS * 5 * 2, 5, THREADS * 5
    assert outcomes.count(Intake.STORED) == own + shared + 5 + studies
    assert outcomes.count(Intake.DUPLICATE) == (THREADS - 1) * shared
    assert outcomes.count(Intake.CONFLICT) == (THREADS - 1) * 5
    with unit_of_work(database_engine) as session:
        stored = select(func.count()).where(Instance.study_uid == STUDY)
        assert session.scalar(stored) == own + shared + 5
        quarantined = select(func.count()).select_from(QuarantinedInstance)
        assert session.scalar(quarantined) == (THREADS - 1) * 5
        revision = session.scalars(select(Revision).where(Revision.study_uid == STUDY)).one()
        assert revision.last_received_at == after(4)
    assert _verify(database_engine).ok


def test_no_instance_slips_between_receiving_and_closing(database_engine: Engine) -> None:
    """Half of the threads send while the others close: every instance is in a revision."""

    def work(thread: int) -> list[str]:
        closed: list[str] = []
        for step in range(8):
            with unit_of_work(database_engine) as session:
                if thread % 2:
                    closed += close_quiet_studies(
                        session, now=after(step), quiet_period_s=0, max_open_s=0
                    )
                else:
                    record_instances(session, [instance(100 * thread + step)])
        return closed

    closed = [revision_id for part in _at_once(work) for revision_id in part]
    with unit_of_work(database_engine) as session:
        closed += close_quiet_studies(session, now=after(99), quiet_period_s=0, max_open_s=0)
        assert len(closed) == len(set(closed))
        rows = session.scalars(select(Revision).order_by(Revision.number)).all()
        assert [row.number for row in rows] == list(range(1, len(closed) + 1))
        assert {row.state for row in rows} == {RevisionState.QUEUED}
        assert len(load_closed_study(session, rows[-1].id).instances) == 4 * 8
        for revision in rows:  # nothing joined a revision after it had closed
            joined = session.scalar(
                select(func.count()).where(Instance.first_revision_id == revision.id)
            )
            closing = session.scalars(
                select(AuditEvent).where(
                    AuditEvent.revision_id == revision.id, AuditEvent.event == "closed"
                )
            ).one()
            assert closing.detail["new_instances"] == joined
    assert _verify(database_engine).ok


def test_closing_skips_a_study_that_an_association_is_writing(
    postgres_server: PostgresServer, postgres_template: str
) -> None:
    engine = create_engine(postgres_server.url(postgres_server.create_database(postgres_template)))

    def close() -> list[str]:
        with unit_of_work(engine) as session:
            return close_quiet_studies(session, now=after(99), quiet_period_s=30, max_open_s=60)

    with unit_of_work(engine) as session:
        record_instances(session, [instance(1)])
    with unit_of_work(engine) as receiving:
        receiving.scalars(select(Study).with_for_update(key_share=True)).all()
        assert close() == []
    assert len(close()) == 1
    engine.dispose()


def test_only_one_of_eight_workers_claims_the_revision(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)

    def claim(_thread: int) -> bool:
        with unit_of_work(database_engine) as session:
            held = claim_revision(session, revision_id, now=after(31), lease_s=60, max_attempts=3)
        return held is not None

    assert _at_once(claim).count(True) == 1
    with unit_of_work(database_engine) as session:
        assert session.get_one(Revision, revision_id).attempt == 1
    assert _verify(database_engine).ok


def test_deliveries_that_finish_at_once_finish_the_revision(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_ids = [queue_study(session, study=f"1.2.{k}") for k in range(THREADS // 2)]
        for number, revision_id in enumerate(revision_ids):
            grade_study(session, revision_id, PACS, ARCHIVE, uid=f"2.25.{number}")
        delivery_ids = session.scalars(select(Delivery.id).order_by(Delivery.revision_id)).all()

    def deliver(thread: int) -> bool:
        with unit_of_work(database_engine) as session:
            held = claims.claim_delivery(session, delivery_ids[thread], now=after(50), lease_s=60)
            assert held is not None
        with unit_of_work(database_engine) as session:
            return claims.record_delivered(
                session, held, now=after(51), proof=Proof.COMMITMENT, statuses={}
            )

    assert _at_once(deliver) == [True] * THREADS
    with unit_of_work(database_engine) as session:
        states = session.scalars(select(Revision.state)).all()
        assert states == [RevisionState.COMMITTED] * len(revision_ids)
    assert _verify(database_engine).ok


def test_refusals_counted_by_eight_processes_add_up(database_engine: Engine) -> None:
    def refuse(thread: int) -> None:
        for turn in range(10):
            kinds = [Kind("refused", "r", f"AE{n}", f"192.0.2.{n}") for n in range(20)]
            own = Kind("refused", "r", "", f"198.51.100.{10 * thread + turn}")
            if thread % 2:  # another order of the rows must not end in a deadlock
                kinds.reverse()
            with unit_of_work(database_engine) as session:
                count(session, {kind: Tally.once() for kind in (own, *kinds)})
                audit.append(session, "refused")

    _at_once(refuse)
    with unit_of_work(database_engine, read_only=True) as session:
        rows = read_view(session, "refusals")
    assert len(rows) == 20 + 10 * THREADS
    assert sorted(row["times"] for row in rows) == [1] * 10 * THREADS + [10 * THREADS] * 20
    assert _verify(database_engine).checked == 10 * THREADS
