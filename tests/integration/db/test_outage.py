"""The database server stops during a transaction and restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from core.errors import Unavailable
from db import audit, migrate
from db.receiving.intake import Intake, record_instances
from db.session import create_engine, unit_of_work
from tests.support.builders.records import instance
from tests.support.servers.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A database server that no other test uses."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def test_an_outage_raises_unavailable_and_leaves_no_partial_transaction(
    own_server: PostgresServer,
) -> None:
    name = own_server.create_database()
    url = own_server.url(name)
    migrate.upgrade(own_server.owner_url(name), runtime_url=url)
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
    late = instance(2)
    with pytest.raises(Unavailable) as caught, unit_of_work(engine) as session:  # noqa: PT012
        assert record_instances(session, [late]) == [Intake.STORED]
        own_server.stop()
        record_instances(session, [instance(3)])  # an error of the driver, not of SQLAlchemy
    assert caught.value.service == "database"
    own_server.start()
    with unit_of_work(engine) as session:
        assert record_instances(session, [late]) == [Intake.STORED]
    engine.dispose()
