"""The database server goes away in the middle of the work and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from core.errors import Unavailable
from db import audit, migrate
from db.intake import Intake, record_instances
from db.session import create_engine, unit_of_work
from tests.servers.postgres import PostgresServer
from tests.unit.db.samples import instance

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that nobody else uses."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def test_an_outage_is_unavailable_and_leaves_no_half_transaction(
    own_server: PostgresServer,
) -> None:
    url = own_server.url(own_server.create_database())
    migrate.upgrade(url)
    engine = create_engine(url)
    with pytest.raises(Unavailable) as caught, unit_of_work(engine) as session:  # noqa: PT012
        record_instances(session, [instance(1)])
        own_server.stop()
        session.execute(text("SELECT 1"))
    assert caught.value.service == "database"
    assert "CANARY" not in str(caught.value)
    with pytest.raises(Unavailable), unit_of_work(engine) as session:
        record_instances(session, [instance(1)])
    own_server.start()
    with unit_of_work(engine) as session:  # the pool holds a dead connection and must notice
        assert record_instances(session, [instance(1)]) == [Intake.STORED]
        assert audit.verify(session).ok
    engine.dispose()
