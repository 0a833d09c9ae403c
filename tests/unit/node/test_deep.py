"""``epvs-node doctor --deep``: each broken invariant has a remedy, and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from core.settings import load_settings
from db.consistency.verdict import Invariant
from db.models import Revision
from db.receiving.intake import record_instances
from db.session import unit_of_work
from node import deep
from node.cli import app
from node.embedded.running import RunningStack
from tests.support.builders import records as made

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from core.settings import Settings


@pytest.fixture
def settings(database_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a node that has received a study, whose files are missing."""
    url = database_engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("EPVS_DATABASE_URL", url)
    monkeypatch.setenv("EPVS_DATA_DIR", str(tmp_path))
    with unit_of_work(database_engine) as session:
        record_instances(session, [made.instance(1)])
    return load_settings()


def test_every_invariant_is_shown_with_a_remedy(settings: Settings) -> None:
    checks = {check.name: check for check in deep.examine(settings)}
    assert set(checks) == set(Invariant)
    assert all(check.remedy for check in checks.values())
    assert not checks["stored files"].ok
    assert "1 checked, 0 of them were read; 1 wrong: instance" in checks["stored files"].detail
    assert not checks["waiting"].ok  # received years ago, and not closed
    assert checks["audit trail"].ok


def test_files_that_nothing_refers_to_are_a_warning(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "spool" / "ab" / f"{'ab' * 32}.dcm"
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (0, 0))
    check = {check.name: check for check in deep.examine(settings)}["orphan files"]
    assert (check.ok, check.warning) == (True, True)
    assert f"spool/ab/{path.name}" in check.detail


def test_a_database_that_cannot_be_reached_is_named() -> None:
    settings = load_settings(database_url="postgresql://epvs@127.0.0.1:1/epvs")
    (check,) = deep.examine(settings)
    assert not check.ok
    assert check.remedy


def test_the_command_fails_and_names_no_patient(
    settings: Settings, database_engine: Engine
) -> None:
    result = CliRunner().invoke(app, ["doctor", "--deep", "--json", "--all-files"])
    assert result.exit_code == 1
    assert {check["name"] for check in json.loads(result.output)} == set(Invariant)
    assert "CANARY" not in result.output
    with unit_of_work(database_engine) as session:  # nothing was changed
        assert session.query(Revision).one().state == "receiving"
    assert CliRunner().invoke(app, ["doctor", "--all-files"]).exit_code == 2


def test_processes_that_ended_and_were_not_waited_for_are_found(settings: Settings) -> None:
    stack = RunningStack(settings)  # this process is the stack
    stack.announce(settings, [], own_broker=False)
    try:
        with subprocess.Popen([sys.executable, "-c", ""]) as child:
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # leaves it a zombie
            *_, check = deep.examine(settings)
            assert (check.name, check.ok) == ("processes", False)
            assert str(child.pid) in check.detail
        *_, check = deep.examine(settings)
        assert check.ok
    finally:
        stack.withdraw()
