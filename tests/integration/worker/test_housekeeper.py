"""The housekeeper while the database or the broker is unavailable."""

from __future__ import annotations

import logging
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from core.errors import Unavailable
from core.settings import Settings, load_settings
from db import outbox
from db.enums import OutboxKind
from db.outbox import OutboxItem
from db.session import create_engine, unit_of_work
from tests.support.builders.made_study import receive_study
from tests.support.builders.records import PACS, grade_study, queue_study
from tests.support.servers.ports import free_port
from worker import notifier
from worker.app import DELIVER, GRADE_REVISION, QUEUES, app
from worker.housekeeper import Housekeeper

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from tests.support.servers.redis import RedisServer


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


def make_settings(folder: Path, broker_port: int) -> Settings:
    return load_settings(
        data_dir=folder,
        database_url=f"sqlite:///{folder / 'epvs.sqlite'}",
        broker_url=f"redis://127.0.0.1:{broker_port}/0",
        quiet_period_s=1e-6,
    )


def receive(engine: Engine, n: int) -> None:
    with unit_of_work(engine) as session:
        for number in range(n):
            receive_study(session, f"1.2.{number}", n=1)


def waiting(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.llen(QUEUES[GRADE_REVISION]))


def test_without_the_broker_everything_stays_due_and_one_warning_is_logged(
    tmp_path: Path, database_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Housekeeper(make_settings(tmp_path, free_port()), database_engine)
    receive(database_engine, 1)
    with caplog.at_level(logging.INFO):
        keeper.sweep()
        keeper.sweep()
    assert [r.message.split(":")[0] for r in caplog.records if r.levelname == "WARNING"] == [
        "waiting for the broker"
    ]
    with unit_of_work(database_engine) as session:
        assert len(outbox.due(session, now=datetime.now(UTC))) == 1


def test_a_database_outage_and_its_end_are_each_logged_once(
    tmp_path: Path,
    database_engine: Engine,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receive(database_engine, 1)
    keeper = Housekeeper(
        make_settings(tmp_path, redis_server.port),
        create_engine(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/epvs"),
    )
    with caplog.at_level(logging.INFO):
        keeper.sweep()
        keeper.sweep()
        keeper._engine = database_engine
        keeper.sweep()
    messages = [record.message for record in caplog.records]
    assert sum(line.startswith("waiting for the database") for line in messages) == 1
    assert "the database responds again" in messages
    assert waiting(redis_server) == 1


def test_a_notification_is_not_repeated_at_once(
    tmp_path: Path, database_engine: Engine, redis_server: RedisServer
) -> None:
    keeper = Housekeeper(make_settings(tmp_path, redis_server.port), database_engine)
    receive(database_engine, 3)
    keeper.sweep()
    keeper.sweep()
    assert waiting(redis_server) == 3


def test_repeated_notifications_do_not_fill_the_broker(
    tmp_path: Path,
    database_engine: Engine,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifier, "MAX_QUEUED", 5)
    keeper = Housekeeper(
        make_settings(tmp_path, redis_server.port), database_engine, repeat_after_s=0.0
    )
    receive(database_engine, 3)
    for _ in range(4):
        keeper.sweep()
    assert waiting(redis_server) == 5


def test_graded_studies_are_delivered_however_many_wait_to_be_graded(
    tmp_path: Path, database_engine: Engine, redis_server: RedisServer
) -> None:
    keeper = Housekeeper(make_settings(tmp_path, redis_server.port), database_engine)
    with unit_of_work(database_engine) as session:
        for number in range(notifier.MAX_QUEUED + 1):
            queue_study(session, study=f"1.2.{number}")
        graded = queue_study(session, study="1.3", at=100)
        grade_study(session, graded, PACS, at=200)
    keeper.sweep()
    with redis_server.client() as client:
        assert client.llen(QUEUES[GRADE_REVISION]) == notifier.MAX_QUEUED
        assert client.llen(QUEUES[DELIVER]) == 1


def test_a_broker_that_never_responds_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is accepted, but nothing is sent."""
    monkeypatch.setitem(app.conf.broker_transport_options, "socket_timeout", 0.3)
    items = [OutboxItem(1, OutboxKind.REVISION, "0" * 32)]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with pytest.raises(Unavailable):
            notifier.notify(items, url)
