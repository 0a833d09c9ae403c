"""The query by which KEDA scales the workers, on PostgreSQL, as the login that KEDA uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import create_engine, text

from db.grading import leases
from db.receiving.intake import record_instances
from db.session import unit_of_work
from tests.support.builders.records import (
    PACS,
    after,
    claim,
    grade_study,
    instance,
    queue_study,
    reject_study,
)
from tests.support.kubernetes import build, find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"])

[TRIGGER] = find(build("gpu"), "ScaledObject", "worker")["spec"]["triggers"]
QUERY: str = TRIGGER["metadata"]["query"]


@pytest.fixture
def as_keda(database_url: str) -> Iterator[psycopg.Connection]:
    """Connected as a member of ``epvs_reader``, made as docs/kubernetes.md says."""
    superuser = create_engine(database_url.replace("epvs_node@", "postgres@"))
    with superuser.begin() as connection:
        connection.execute(text("CREATE ROLE epvs_scaler LOGIN PASSWORD 'x' IN ROLE epvs_reader"))
    try:
        with psycopg.connect(database_url.replace("epvs_node@", "epvs_scaler@")) as connection:
            connection.autocommit = True
            yield connection
    finally:
        with superuser.begin() as connection:
            connection.execute(text("DROP ROLE epvs_scaler"))
        superuser.dispose()


def waiting(connection: psycopg.Connection) -> float:
    """One row, one number: KEDA takes no other answer."""
    [row] = connection.execute(QUERY).fetchall()
    [value] = row
    return float(value)


def test_studies_that_wait_or_are_graded_are_counted(
    database_engine: Engine, as_keda: psycopg.Connection
) -> None:
    assert waiting(as_keda) == 0
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1, study="1.2.840.99.100", received_at=after(1e6))])
    assert waiting(as_keda) == 0, "a study that still arrives"
    with unit_of_work(database_engine) as session:
        queued = [queue_study(session, study=f"1.2.840.99.{n}") for n in range(1, 6)]
    assert waiting(as_keda) == 5
    with unit_of_work(database_engine) as session:
        claim(session, queued[0], at=200)
    assert waiting(as_keda) == 5, "one of them is being graded"
    with unit_of_work(database_engine) as session:
        grade_study(session, queued[1], PACS, at=210)
        reject_study(session, queued[2], at=210)
    assert waiting(as_keda) == 3, "one is graded and waits for its delivery, one was rejected"
    with unit_of_work(database_engine) as session:
        leases.sweep(session, now=after(1000), max_attempts=1)
    assert waiting(as_keda) == 2, "one has failed"


def test_the_login_can_read_no_table(database_engine: Engine, as_keda: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_keda.execute("SELECT * FROM revisions")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_keda.execute("UPDATE revisions SET state = 'queued'")
