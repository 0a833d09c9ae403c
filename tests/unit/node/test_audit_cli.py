"""``epvs-node audit``: its options. What it finds is in ``tests/attacks/test_audit_forgery.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from core import audit_checkpoints
from core.errors import EpvsError
from core.settings import load_settings
from db import audit
from db.session import unit_of_work
from node.audit_cli import app
from worker.audit_checkpoints import Checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, EpvsError):
        raise result.exception
    return " ".join(result.output.split())


@pytest.fixture(autouse=True)
def settings(database_url: str, database_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPVS_DATABASE_URL", database_url)
    with unit_of_work(database_engine) as session:
        audit.append(session, "node-started")


def test_keygen_makes_a_key_that_the_housekeeper_can_use(
    tmp_path: Path, database_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without options, verification uses what the settings name."""
    key, checkpoints = tmp_path / "key.pem", tmp_path / "checkpoints"
    printed = run("keygen", str(key))
    public = audit_checkpoints.load_public_key(tmp_path / "key.pem.pub")
    assert audit_checkpoints.key_id(public) in printed

    monkeypatch.setenv("EPVS_AUDIT_KEY", str(key))
    monkeypatch.setenv("EPVS_AUDIT_CHECKPOINTS", str(checkpoints))
    monkeypatch.setenv("EPVS_DATA_DIR", str(tmp_path / "data"))
    Checkpoints(load_settings(), database_engine).send([str(checkpoints)])
    printed = run("verify")
    assert "1 audit events, chain intact" in printed
    assert "every event is covered by a checkpoint" in printed


def test_without_checkpoints_the_limit_is_said() -> None:
    assert "events 1 to 1: the owner of the database could have rewritten them" in run("verify")


def test_checkpoints_need_a_public_key(tmp_path: Path) -> None:
    with pytest.raises(EpvsError, match="--public-key"):
        run("verify", "--checkpoints", str(tmp_path / "checkpoints"))


@pytest.mark.parametrize("head", ["", "1", "0:" + "0" * 64, "1:xyz", "x:" + "0" * 64])
def test_a_head_of_another_form_is_refused(head: str) -> None:
    assert "must be SEQ:HASH" in run("verify", "--head", head)
