"""``epvs-node prune``, ``abandon`` and ``erase``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from db.session import unit_of_work
from node.cli import app
from tests.support.builders.records import STUDY
from tests.support.builders.stored_studies import delivered_study, park

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


@pytest.fixture(autouse=True)
def installation(monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path) -> None:
    monkeypatch.setenv("EPVS_DATABASE_URL", database_url)
    monkeypatch.setenv("EPVS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_prune_removes_what_a_dry_run_said(database_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(database_engine) as session:
        files = []
        for n in range(3):
            _, images, _ = delivered_study(session, tmp_path, study=f"1.2.840.99.{n}", n=2)
            files += images
    due = json.loads(run("prune", "--dry-run", "--json"))
    assert (due["studies"], due["images"]["files"]) == (3, 6)
    assert all(path.exists() for path in files)
    done = json.loads(run("prune", "--json"))
    assert (done["studies"], done["images"]) == (3, due["images"])
    assert not any(path.exists() for path in files)
    assert "0 files" in run("prune", "--dry-run")


def test_abandon_needs_a_study_or_a_destination(database_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(database_engine) as session:
        revision_id, _, _ = delivered_study(session, tmp_path)
        park(session, revision_id)
    assert "name a study" in run("abandon")
    assert "0 failed" in run("abandon", "--destination", "OTHER@192.0.2.1:104")
    assert "1 failed" in run("abandon", STUDY)


def test_erase_says_what_it_would_and_does_it_when_told(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        _, images, reports = delivered_study(session, tmp_path)
    assert "name a patient or a study" in run("erase")
    assert STUDY in run("erase", "--patient", "CANARY-7")
    assert all(path.exists() for path in images + reports)
    assert "erased 1 studies; 7 files removed" in run("erase", "--patient", "CANARY-7", "--yes")
    assert not any(path.exists() for path in images + reports)
    assert not [p for p in tmp_path.glob("*.sqlite*") if b"CANARY" in p.read_bytes()]
