"""The housekeeper, as a process, sends checkpoints of the audit trail beside its other duties."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from core.audit_checkpoints import generate_key, read_checkpoints
from db import audit
from db.session import unit_of_work
from tests.support.builders.made_study import receive_study
from tests.support.paths import ROOT
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


def test_a_syslog_server_that_does_not_respond_delays_nothing(
    tmp_path: Path, database_url: str, database_engine: Engine
) -> None:
    """Its queue of connections is full, so that connecting takes until the time limit."""
    checkpoints = tmp_path / "checkpoints"
    generate_key(tmp_path / "key.pem")
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.create_connection(server.getsockname()),
    ):
        settings = {
            "DATA_DIR": str(tmp_path / "data"),
            "DATABASE_URL": database_url,
            "BROKER_URL": f"redis://127.0.0.1:{free_port()}/0",
            "QUIET_PERIOD_S": "0.001",
            "SWEEP_INTERVAL_S": "0.05",
            "AUDIT_KEY": str(tmp_path / "key.pem"),
            "AUDIT_CHECKPOINTS": str(checkpoints),
            "AUDIT_SYSLOG": f"tcp://127.0.0.1:{server.getsockname()[1]}",
        }
        environment = {f"EPVS_{name}": value for name, value in settings.items()}
        with unit_of_work(database_engine) as session:
            audit.append(session, "node-started")
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker.housekeeper"],
                cwd=ROOT,
                env=os.environ | environment,
                stderr=log,
            )
        try:
            wait_until(checkpoints.exists)
            with unit_of_work(database_engine) as session:
                receive_study(session, "1.2.3", n=1)
            wait_until(lambda: "closed revision=" in (tmp_path / "log").read_text(), timeout_s=2)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
    with unit_of_work(database_engine) as session:
        newest, _ = audit.newest(session)
    assert newest > 1
    assert [each.seq for each in read_checkpoints(checkpoints)] == [1, newest]
