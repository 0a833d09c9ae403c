"""``epvs-node doctor``: a fault on this machine is named with its remedy."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from core.errors import EpvsError
from core.settings import load_settings
from db import migrate
from db.clock import current_time
from db.models import Instance, Study
from db.receiving.intake import record_instances
from db.session import unit_of_work
from node import doctor
from node.embedded.running import RunningStack
from node.embedded.supervision import ComponentState
from tests.support.builders.certificates import Authority
from tests.support.builders.records import instance

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from node.check import Check

CALLERS = "PACS@192.0.2.10"


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's part of the checks fails as a whole."""

    def fail(*_: object, **__: object) -> None:
        raise EpvsError("worker.commands.doctor ended with code 1.")

    monkeypatch.setattr(doctor, "run_module", fail)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def _checks(**settings: object) -> dict[str, Check]:
    return {check.name: check for check in doctor.examine(load_settings(**settings))}


def test_a_new_installation_is_told_what_is_missing(
    empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = _checks(database_url=empty_database_url, callers="", spool_reserve_mb=10**9)
    assert [name for name, check in checks.items() if check.ok] == ["permissions"]
    assert checks["database"].remedy == "Run epvs-node migrate."
    assert "at revision none" in checks["database"].detail
    assert checks["worker"].detail == "worker.commands.doctor ended with code 1."
    doctor.show(list(checks.values()))
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("FAIL") == 4
    assert "→ Run epvs-node migrate." in shown
    assert "EPVS_CALLERS=PACS@192.0.2.10" in shown


def test_a_migrated_database_with_callers_and_space_is_in_order(
    database_url: str, data_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "epvs.sqlite").chmod(0o600)
    checks = _checks(
        database_url=database_url, data_dir=data_dir, callers=CALLERS, spool_reserve_mb=0
    )
    assert [name for name, check in checks.items() if not check.ok] == ["worker"]
    assert migrate.head_revision() in checks["database"].detail


def test_tls_files_are_checked_where_there_are_any(database_url: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    identity = authority.issue("node.example")
    settings = {
        "database_url": database_url,
        "tls_certificate": identity.certificate,
        "tls_key": identity.key,
        "tls_authorities": identity.authorities,
        "tls_revocation": authority.revocation_list(),
    }
    files = {name: str(value) for name, value in settings.items()}
    check = _checks(**files)["TLS files"]
    assert check.ok
    assert check.detail.count("valid until") == 3
    authority.revocation_list(expires_in=timedelta(days=-1))
    check = _checks(**files)["TLS files"]
    assert not check.ok
    assert re.fullmatch(r"revocation list of .* expired \S+ \S+ UTC", check.detail)
    assert "refuses all that depends on it" in check.remedy
    identity.key.write_text("not yet complete")
    check = _checks(**files)["TLS files"]
    assert not check.ok
    assert f"EPVS_TLS_KEY {identity.key} cannot be used" in check.detail
    assert check.remedy
    assert "TLS files" not in _checks(database_url=database_url)


def test_each_process_of_a_running_stack_is_shown_with_its_restarts(
    database_url: str, data_dir: Path
) -> None:
    settings = load_settings(data_dir=data_dir)
    now = datetime.now(UTC)
    component = ComponentState(
        *("receiver", "running", 4711, str(now - timedelta(days=9)), 0, "", "", ""),
        "/data/logs/receiver.log",
    )
    states = [
        component,
        replace(
            component,
            name="worker",
            restarts=3,
            last_exit="killed by SIGKILL",
            last_exit_at=str(now - timedelta(hours=1)),
        ),
        replace(
            component,
            name="housekeeper",
            restarts=1,
            last_exit="killed by SIGKILL",
            last_exit_at=str(now - timedelta(days=8)),
        ),
        replace(component, name="Redis", state="waiting", pid=0, next_try=str(now)),
    ]
    stack = RunningStack(settings)
    try:
        stack.announce(settings, states, own_broker=False)
        checks = _checks(database_url=database_url, data_dir=data_dir)
    finally:
        stack.withdraw()
    shown = {name: check for name, check in checks.items() if name.startswith("process ")}
    assert {name: (check.ok, check.warning) for name, check in shown.items()} == {
        "process receiver": (True, False),
        "process worker": (True, True),
        "process housekeeper": (True, False),
        "process Redis": (False, False),
    }
    assert "restarts: 3, killed by SIGKILL at " in shown["process worker"].detail
    assert "to be started again at " in shown["process Redis"].detail
    assert "/data/logs/receiver.log" in shown["process Redis"].remedy


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_what_other_accounts_can_read_is_named_with_the_command_that_closes_it(
    database_url: str, data_dir: Path, tmp_path: Path, mode: int
) -> None:
    database = tmp_path / "epvs.sqlite"
    database.chmod(mode)
    settings = {"database_url": database_url, "data_dir": data_dir}
    check = _checks(**settings)["permissions"]
    assert not check.ok
    assert check.remedy == f"Run chmod go= {database}."
    data_dir.chmod(0o750)
    check = _checks(**settings)["permissions"]
    assert check.remedy == f"Run chmod go= {data_dir} {database}."
    subprocess.run(["bash", "-c", check.remedy.removeprefix("Run ").removesuffix(".")], check=True)
    assert _checks(**settings)["permissions"].ok


def test_a_database_that_cannot_be_reached_is_named() -> None:
    checks = _checks(database_url="postgresql://epvs@127.0.0.1:1/epvs", callers=CALLERS)
    assert not checks["database"].ok
    assert checks["database"].remedy


def test_instances_in_quarantine_are_a_warning(
    database_engine: Engine, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = database_engine.url.render_as_string(hide_password=False)
    check = _checks(database_url=url, data_dir=data_dir)["quarantine"]
    assert (check.ok, check.warning, check.detail) == (
        True,
        False,
        "instances that wait: 0, of studies: 0",
    )
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1), instance(2, patient_id="CANARY-8")])
    check = _checks(database_url=url, data_dir=data_dir)["quarantine"]
    assert (check.ok, check.warning, check.detail) == (
        True,
        True,
        "instances that wait: 1, of studies: 1",
    )
    doctor.show([check])
    shown = capsys.readouterr().out
    assert "warn quarantine: instances that wait: 1, of studies: 1" in shown
    assert "→ Run epvs-node quarantine list" in shown
    assert "CANARY" not in shown


def test_the_forecast_says_when_the_disk_is_full(
    database_url: str, database_engine: Engine, data_dir: Path
) -> None:
    def forecast(**settings: object) -> Check:
        known = {"database_url": database_url, "callers": CALLERS, "data_dir": data_dir}
        return _checks(**known, **settings)["disk forecast"]

    assert "too early" in forecast().detail
    for name in ("spool", "reports"):
        (data_dir / name).mkdir()
    with unit_of_work(database_engine, read_only=True) as session:
        now = current_time(session)
    free = shutil.disk_usage(data_dir).free
    with unit_of_work(database_engine) as session:
        record_instances(
            session,
            [
                instance(1, study="1.2.3.1", received_at=now - timedelta(days=8), size_bytes=1),
                instance(1, study="1.2.3.2", received_at=now - timedelta(days=1), size_bytes=free),
            ],
        )
    check = forecast(spool_reserve_mb=0)
    assert re.search(r"spool and reports \+\d+ MB a day, full in 7 days at this rate", check.detail)
    assert check.ok
    assert check.warning
    with unit_of_work(database_engine) as session:
        session.execute(
            update(Study).where(Study.study_uid == "1.2.3.2").values(files_removed_at=now)
        )
        session.execute(update(Instance).values(removed_at=now))
    check = forecast(spool_reserve_mb=0)
    assert "not filling" in check.detail
    assert not check.warning
