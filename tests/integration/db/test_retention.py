"""Several housekeepers remove the files of a study while receivers take them again."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from db import audit
from db.models import FileRemoval, Instance, Revision
from db.receiving.intake import Intake
from db.retention.removals import decide_images, remove_listed
from db.session import unit_of_work
from tests.support.builders.records import STUDY, after
from tests.support.builders.stored_studies import delivered_study, receive, received

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

N_INSTANCES = 8
N_ROUNDS = 25
NEVER_TOO_YOUNG = after(10**9)


def test_what_is_received_again_during_its_removal_is_kept_or_refused(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        delivered_study(session, tmp_path, n=N_INSTANCES)
    barrier = Barrier(5)
    order = random.Random(16)

    def send(numbers: list[int]) -> set[Intake]:
        """Do as `receiver.storage` does; a sender that is refused gives up."""
        barrier.wait()
        outcomes = set()
        for number in numbers:
            instance = received(tmp_path, number, received_at=after(100))
            with unit_of_work(database_engine) as session:
                outcomes |= set(receive(session, instance))
        return outcomes

    def decide() -> None:
        with unit_of_work(database_engine) as session:
            decide_images(session, STUDY, cutoff=NEVER_TOO_YOUNG, now=NEVER_TOO_YOUNG, why="age")

    def prune(_: int) -> int:
        barrier.wait()
        return remove_listed(database_engine, limit=1000).files

    outcomes: set[Intake] = set()
    n_removed = 0
    with ThreadPoolExecutor(5) as pool:
        for _ in range(N_ROUNDS):
            decide()
            housekeepers = [pool.submit(prune, n) for n in range(2)]
            numbers = [order.sample(range(1, N_INSTANCES + 1), 4) for _ in range(3)]
            for result in pool.map(send, numbers):
                outcomes |= result
            n_removed += sum(each.result() for each in housekeepers)
            with unit_of_work(database_engine, read_only=True) as session:
                rows = session.execute(select(Instance.path, Instance.removed_at)).all()
                present = {path for path, removed_at in rows if removed_at is None}
                listed = set(session.scalars(select(FileRemoval.path)))
            there = {str(path) for path in tmp_path.glob("spool/*/*.dcm")}
            assert present <= there
            # What was refused may remain until its instance is sent again, as after a crash.
            assert not present & listed

    assert n_removed
    assert Intake.DUPLICATE in outcomes
    with unit_of_work(database_engine) as session:
        assert session.scalar(select(func.count()).select_from(Instance)) == N_INSTANCES
        assert session.scalar(select(func.count()).select_from(Revision)) == 1
        assert audit.verify(session).ok
