from __future__ import annotations

import socket
import traceback
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from core.errors import Unavailable
from db.models import Study
from db.session import create_engine, unit_of_work
from tests.support.builders.records import STUDY, STUDY_ROW

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


def test_timestamps_are_read_aware_and_in_utc(database_engine: Engine) -> None:
    tokyo = datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=timezone(timedelta(hours=9)))
    with unit_of_work(database_engine) as session:
        session.execute(insert(Study).values(STUDY_ROW | {"first_received_at": tokyo}))
    with unit_of_work(database_engine) as session:
        read = session.get_one(Study, STUDY).first_received_at
    assert read == tokyo
    assert read.utcoffset() == timedelta(0)


def test_a_time_without_zone_is_refused(database_engine: Engine) -> None:
    naive = datetime(2026, 3, 1)  # noqa: DTZ001 - must be naive
    with (
        pytest.raises(StatementError, match="without time zone"),
        unit_of_work(database_engine) as session,
    ):
        session.execute(insert(Study).values(STUDY_ROW | {"first_received_at": naive}))


def test_an_error_contains_no_patient_data(database_engine: Engine) -> None:
    with pytest.raises(IntegrityError) as caught, unit_of_work(database_engine) as session:
        session.execute(insert(Study), [STUDY_ROW, STUDY_ROW])
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_a_read_only_transaction_cannot_write(database_engine: Engine) -> None:
    with (
        pytest.raises((DBAPIError, Unavailable)),
        unit_of_work(database_engine, read_only=True) as session,
    ):
        session.execute(insert(Study).values(STUDY_ROW))
    with unit_of_work(database_engine) as session:  # the connection can still write
        session.execute(insert(Study).values(STUDY_ROW))


def test_a_locked_sqlite_file_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.session._BUSY_TIMEOUT_S", 0.1)
    engine = create_engine(f"sqlite:///{tmp_path / 'folder' / 'epvs.sqlite'}")
    with unit_of_work(engine) as writer:
        writer.execute(text("CREATE TABLE t (x)"))
        with (
            pytest.raises(Unavailable, match="database is locked") as caught,
            unit_of_work(engine) as other,
        ):
            other.execute(text("SELECT 1"))
    assert caught.value.service == "database"
    engine.dispose()


def test_a_server_that_is_not_running_is_unavailable() -> None:
    with socket.socket() as probe:  # bound, not listening, so no other process uses the port
        probe.bind(("127.0.0.1", 0))
        engine = create_engine(f"postgresql://epvs@127.0.0.1:{probe.getsockname()[1]}/epvs")
        with pytest.raises(Unavailable, match="refused"), unit_of_work(engine) as session:
            session.execute(text("SELECT 1"))
