"""Group commit: one transaction per batch, and a bad entry fails alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import event, select

from core.studies import ReceivedInstance
from db.models import Instance, Revision
from db.receiving.intake import Intake, record_instances
from db.session import unit_of_work
from receiver.instance_registry import InstanceRegistry, _Row

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


def make_instance(folder: Path, number: int) -> ReceivedInstance:
    return ReceivedInstance(
        study_uid="1.2",
        series_uid="1.2.1",
        sop_instance_uid=f"1.2.1.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=folder / str(number),
        sha256=f"{number:064x}",
        size_bytes=1,
        calling_ae="PACS",
        peer_address="127.0.0.1",
        received_at=datetime.now(UTC),
    )


def test_entries_that_gather_are_one_transaction(database_engine: Engine, tmp_path: Path) -> None:
    registry = InstanceRegistry(database_engine, timeout_s=30)
    with unit_of_work(database_engine) as session:
        record_instances(session, [make_instance(tmp_path, 0)])
    # 0 is known already and 7 comes twice, so the batch has new and known instances.
    rows = [_Row(make_instance(tmp_path, number)) for number in (*range(8), 7)]
    commits: list[object] = []
    with unit_of_work(database_engine) as session:
        # A writer holds what the first entry needs, so that the others gather behind it.
        session.scalars(select(Revision).with_for_update()).all()
        for row in rows:
            registry._rows.put(row)
        event.listen(database_engine, "commit", commits.append)
    outcomes = [row.outcome.result(30) for row in rows]
    registry.close()

    assert outcomes == [Intake.DUPLICATE, *[Intake.STORED] * 7, Intake.DUPLICATE]
    assert len(commits) <= 3  # the writer's, one that had begun by then, and one for the rest


def test_a_bad_entry_fails_alone(database_engine: Engine, tmp_path: Path) -> None:
    registry = InstanceRegistry(database_engine, timeout_s=30)
    instances = [make_instance(tmp_path, number) for number in range(8)]
    instances[3] = replace(instances[3], size_bytes=2**63)  # more than its column holds

    with ThreadPoolExecutor(8) as pool:
        with unit_of_work(database_engine):  # a writer holds the lock, so that all form a batch
            outcomes = [pool.submit(registry.record, instance) for instance in instances]
        bad = outcomes.pop(3)
        assert [outcome.result() for outcome in outcomes] == [Intake.STORED] * 7
        with pytest.raises((OverflowError, psycopg.DataError)):
            bad.result()
    registry.close()

    with unit_of_work(database_engine, read_only=True) as session:
        assert len(session.scalars(select(Instance)).all()) == 7
