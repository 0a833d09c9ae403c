"""Checkpoints of the audit trail: when they are sent, and what happens when they cannot be."""

from __future__ import annotations

import logging
import socket
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from core.audit_checkpoints import generate_key, read_checkpoints
from core.errors import Unavailable
from core.settings import Settings, load_settings
from db import audit
from db.session import unit_of_work
from tests.support.servers.receiver import wait_until
from worker import audit_checkpoints
from worker.audit_checkpoints import Checkpoints, Sent, read_status

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    generate_key(tmp_path / "key.pem")
    return load_settings(
        data_dir=tmp_path / "data",
        audit_key=str(tmp_path / "key.pem"),
        audit_checkpoints=str(tmp_path / "checkpoints"),
    )


def append(engine: Engine, n: int = 1) -> None:
    with unit_of_work(engine) as session:
        for _ in range(n):
            audit.append(session, "node-started")


def events_in(path: Path) -> list[int]:
    return [checkpoint.seq for checkpoint in read_checkpoints(path)]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


def send(settings: Settings, engine: Engine) -> list[str]:
    """What a housekeeper does that has just started."""
    return Checkpoints(settings, engine).send(audit_checkpoints.destinations(settings))


def test_a_checkpoint_is_sent_only_when_there_are_new_events(
    settings: Settings, database_engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints"
    assert send(settings, database_engine) == []
    assert not path.exists()  # an empty trail
    append(database_engine, 3)
    for _ in range(2):
        assert send(settings, database_engine) == []
        assert events_in(path) == [3]
    append(database_engine)
    assert send(settings, database_engine) == []
    assert events_in(path) == [3, 4]


def test_a_line_cut_off_by_a_crash_does_not_spoil_the_next(
    settings: Settings, database_engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints"
    path.write_text('{"seq":')
    append(database_engine)
    send(settings, database_engine)
    cut, whole = path.read_text().splitlines()
    assert cut == '{"seq":'
    path.write_text(whole)
    assert events_in(path) == [1]


def test_one_destination_does_not_wait_for_the_other(
    settings: Settings,
    database_engine: Engine,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    settings = settings.model_copy(update={"audit_syslog": url})
    append(database_engine)
    assert send(settings, database_engine) == [url]
    assert send(settings, database_engine) == [url]
    assert events_in(tmp_path / "checkpoints") == [1]
    status = read_status(settings)
    assert status[settings.audit_checkpoints].problem == ""
    assert "cannot be written to" in status[url].problem
    assert len(errors(caplog)) == 1  # the second housekeeper knows of it

    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))) as server:
        assert send(settings, database_engine) == []
        with server.accept()[0] as connection, connection.makefile() as received:
            (tmp_path / "log").write_text(received.readline())
    assert events_in(tmp_path / "log") == [1]
    assert read_status(settings)[url] == Sent(1, *_signed(settings))


def _signed(settings: Settings) -> tuple[str, str]:
    sent = read_status(settings)[settings.audit_checkpoints]
    return sent.hash, sent.at


@pytest.mark.parametrize("spoil", ["key", "file", "database", "defect"])
def test_a_problem_is_logged_once_and_noted_until_it_ends(
    spoil: str,
    settings: Settings,
    database_engine: Engine,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "checkpoints"
    append(database_engine)
    checkpoints = Checkpoints(settings, database_engine)
    with monkeypatch.context() as patch:
        if spoil == "key":
            (tmp_path / "key.pem").rename(tmp_path / "elsewhere")
        elif spoil == "file":
            path.mkdir()
        elif spoil == "database":
            patch.setattr("db.audit.newest", _unavailable)
        else:
            patch.setattr("db.audit.newest", lambda _: 1 // 0)
        for _ in range(2):
            assert checkpoints.send([str(path)]) == [str(path)]
    (line,) = errors(caplog)
    expected = {
        "key": "key.pem cannot be read",
        "file": "Is a directory",
        "database": "down",
        "defect": "unexpected ZeroDivisionError",
    }
    assert expected[spoil] in line
    assert read_status(settings)[str(path)].problem
    if spoil == "key":
        (tmp_path / "elsewhere").rename(tmp_path / "key.pem")
    elif spoil == "file":
        path.rmdir()
    assert checkpoints.send([str(path)]) == []
    assert read_status(settings)[str(path)].problem == ""
    assert events_in(path) == [1]


def _unavailable(_: Any) -> Any:
    raise Unavailable("database", "The database is down.")


def test_checkpoints_are_sent_at_once_on_schedule_and_at_the_end(
    settings: Settings, database_engine: Engine, tmp_path: Path
) -> None:
    class Stop(threading.Event):
        """Set after the third wait; while each one lasts, an event is appended."""

        waits_s: ClassVar[list[float]] = []

        def wait(self, timeout: float | None = None) -> bool:
            append(database_engine)
            self.waits_s.append(timeout or 0)
            if len(self.waits_s) == 3:
                self.set()
            return super().wait(timeout)

    soon = settings.model_copy(update={"audit_interval_s": 0.01})
    Checkpoints(soon, database_engine).run(Stop())
    assert events_in(tmp_path / "checkpoints") == [1, 2, 3]
    assert all(wait_s <= 0.01 for wait_s in Stop.waits_s)


def test_a_failure_is_tried_again_soon(
    settings: Settings, database_engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Long before the interval, an hour, has passed."""
    path, stop = tmp_path / "checkpoints", threading.Event()
    append(database_engine)
    path.mkdir()
    monkeypatch.setattr(audit_checkpoints, "RETRY_S", 0.02)
    thread = threading.Thread(target=Checkpoints(settings, database_engine).run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: read_status(settings))
        path.rmdir()
        wait_until(lambda: not read_status(settings)[str(path)].problem)
    finally:
        stop.set()
        thread.join(10)
    assert events_in(path) == [1]


def test_a_status_that_cannot_be_read_counts_as_none(settings: Settings) -> None:
    settings.audit_status_file.parent.mkdir()
    for text in ("", "[]", '{"a": 1}', '{"a": {"b": 1}}', "{"):
        settings.audit_status_file.write_text(text)
        assert read_status(settings) == {}
