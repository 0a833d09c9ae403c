"""The unit for a machine with systemd: correct, restricted, and the node works under it.

No systemd runs here. What the unit restricts is imposed by `tests.support.systemd_sandbox`.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.settings import load_settings
from node.embedded.servers import Servers
from tests.support.builders.synthetic_studies import generate_synthetic_study
from tests.support.paths import ROOT
from tests.support.servers.receiver import wait_until
from tests.support.servers.up import run_up
from tests.support.systemd_sandbox import ACCOUNT, STATE_FOLDER, read_service

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = ROOT / "deploy" / "systemd"
UNIT = DEPLOY / "epvs-node.service"
WORST_EXPOSURE = 15
"""Tenths of the scale of ``systemd-analyze security``, 0 to 100."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here."""
    (program,) = read_service(UNIT)["ExecStart"]
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace(program, f"{sys.executable} -m node up"))
    return installed


def test_systemd_finds_no_fault_with_the_unit(unit: Path) -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("LimitCORE=0", "LimitKORE=0"))
    result = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert "LimitKORE" in result.stderr


def test_the_unit_exposes_little(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={WORST_EXPOSURE}"]
    result = subprocess.run([*command, unit], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_account_is_that_of_the_unit() -> None:
    (line,) = [
        line
        for line in (DEPLOY / "epvs-node.conf").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    kind, name, _, _, home, _ = shlex.split(line)
    service = read_service(UNIT)
    assert (kind, [name], home) == ("u", service["User"], str(STATE_FOLDER))
    assert service["StateDirectory"] == [STATE_FOLDER.name]


def test_the_example_names_only_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "database-url").write_text("postgresql://epvs@localhost/epvs")
    for line in (DEPLOY / "epvs-node.env.example").read_text().splitlines():
        if not line.startswith("# ") and "=" in line:
            name, _, value = line.removeprefix("#").partition("=")
            if name.endswith("_FILE"):
                value = str(tmp_path / Path(value).name)
            monkeypatch.setenv(name, value)
    assert load_settings().ae_title == "EPVSNODE"


@pytest.fixture
def manager() -> Iterator[tuple[str, socket.socket]]:
    """A socket to which the node reports, and its address in ``NOTIFY_SOCKET``."""
    name = f"epvs-test-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind(f"\0{name}")
        receiving.setblocking(False)
        yield f"@{name}", receiving


def test_a_study_is_graded_under_the_restrictions_of_the_unit(
    tmp_path: Path, manager: tuple[str, socket.socket]
) -> None:
    address, receiving = manager
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, ACCOUNT, ACCOUNT)
    servers = Servers.install()
    servers.triton_stub.chmod(0o755)  # a Triton of version 0.1 may have made it unreadable
    cache = servers.folder.parent
    sandbox = [
        *("unshare", "--mount", sys.executable, "-m", "tests.support.systemd_sandbox"),
        *map(str, (UNIT, state, cache, sys.executable, "-m", "node")),
    ]
    study = generate_synthetic_study(tmp_path / "study", seed=16)
    with run_up(tmp_path, state, [*sandbox, "up"], NOTIFY_SOCKET=address) as node:
        node.wait_until_ready()
        told = [_next(receiving) for _ in range(3)]
        assert told[0].startswith("STATUS=Triton running, Redis running, receiver running")
        assert told[1:] == ["READY=1", "WATCHDOG=1"]
        receiving.close()
        node.send(study)
        (study_uid,) = wait_until(node.studies)
        node.wait_for(study_uid, "delivered")
        assert node.n_reports(study_uid) == 1
        doctor = subprocess.run(
            [*sandbox, "doctor"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr
        # The worker's own process, restarted under the same restrictions.
        os.kill(node.components()["worker"].pid, signal.SIGKILL)
        wait_until(lambda: node.components()["worker"].restarts == 1, 60)
        node.wait_until_all_run()
        assert node.end(signal.SIGTERM) == 0, node.output
    assert {path.lstat().st_uid for path in state.rglob("*")} == {ACCOUNT}


def _next(receiving: socket.socket) -> str:
    def receive() -> str:
        try:
            return receiving.recv(4096).decode()
        except BlockingIOError:
            return ""

    return str(wait_until(receive))
