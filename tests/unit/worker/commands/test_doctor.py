"""The worker's part of ``epvs-node doctor`` reports every missing service."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from core.audit_checkpoints import generate_key
from core.errors import Unavailable
from core.settings import load_settings
from db import audit
from db.session import unit_of_work
from worker.app import app
from worker.audit_checkpoints import Checkpoints
from worker.commands import doctor

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from sqlalchemy import Engine


def _examine(capsys: pytest.CaptureFixture[str], **settings: Any) -> dict[str, dict[str, Any]]:
    doctor.examine(load_settings(**settings))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["name"]: line for line in lines}


def test_workers_that_only_grade_are_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_check_models", lambda *_: None)
    responses: list[dict[str, list[dict[str, str]]]] = []

    def broadcast(_command: str, **_: Any) -> list[dict[str, list[dict[str, str]]]]:
        return responses

    monkeypatch.setattr(app.control, "broadcast", broadcast)
    responses += [{"celery@host": [{"name": "epvs"}]}, {"celery@host": [{"name": "epvs"}]}]
    found = _examine(capsys)["workers"]
    assert (found["ok"], found["detail"]) == (False, "2 grade, 0 deliver")
    responses += [{"celery@host": [{"name": "epvs"}, {"name": "epvs-delivery"}]}]
    found = _examine(capsys)["workers"]
    assert (found["ok"], found["detail"]) == (True, "3 grade, 1 deliver")


def test_checkpoints_that_are_not_sent_are_reported(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    database_engine: Engine,
    database_url: str,
    tmp_path: Path,
) -> None:
    for unrelated in ("_check_workers", "_check_models"):
        monkeypatch.setattr(doctor, unrelated, lambda *_: None)
    key, file, data = tmp_path / "key.pem", tmp_path / "checkpoints", tmp_path / "data"
    generate_key(key)
    given = {
        "database_url": database_url,
        "data_dir": data,
        "audit_key": str(key),
        "audit_checkpoints": str(file),
    }
    checkpoints = Checkpoints(load_settings(**given), database_engine)

    def check(**changes: Any) -> tuple[bool, str]:
        found = _examine(capsys, **given, **changes)[f"audit checkpoints {file}"]
        return found["ok"], found["detail"]

    assert check() == (True, "nothing was sent yet; 0 events since")
    with unit_of_work(database_engine) as session:
        audit.append(session, "node-started")
    assert check() == (False, "nothing was sent yet; 1 events since")
    file.mkdir()
    checkpoints.send([str(file)])
    assert check() == (False, f"{file} cannot be written to: Is a directory.")
    file.rmdir()
    checkpoints.send([str(file)])
    ok, detail = check()
    assert ok
    assert detail.startswith("event 1 of 2")
    with unit_of_work(database_engine) as session:
        audit.append(session, "node-started")
    ok, detail = check()
    assert ok
    assert detail.endswith("; 1 events since")
    assert not check(audit_interval_s=1e-9)[0]  # overdue: the housekeeper does not run
    monkeypatch.setattr(audit, "newest", _unavailable)
    found = _examine(capsys, **given)["audit checkpoints"]
    assert (found["ok"], found["detail"]) == (False, "The database is down.")


def _unavailable(_: Any) -> Any:
    raise Unavailable("database", "The database is down.")


def test_every_absent_service_is_named_with_a_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(doctor, "_WAIT_S", 0.1)
    monkeypatch.setitem(app.conf.broker_transport_options, "max_retries", 1)
    with socket.socket() as closed:  # bound but not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        monkeypatch.setattr(app.conf, "broker_url", f"redis://127.0.0.1:{port}/0")
        found = _examine(
            capsys,
            database_url=database_url,
            triton_url=f"127.0.0.1:{port}",
            destinations=f"PACS@127.0.0.1:{port},hl7://127.0.0.1:{port},*@*:104",
        )
    archive, ris = f"destination PACS@127.0.0.1:{port}", f"destination hl7://127.0.0.1:{port}"
    assert found.pop("audit checkpoints")["ok"]  # there are none
    assert set(found) == {"broker", "Triton", archive, ris}
    assert not any(check["ok"] for check in found.values())
    assert "triton" in found["Triton"]["detail"].lower()
    assert all(check["remedy"] for check in found.values())
