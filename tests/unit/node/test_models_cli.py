"""``epvs-node models list``: what the folder and the database say together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from core.errors import EpvsError
from db import model_use
from db.enums import ModelRole
from db.session import unit_of_work
from node import models_cli
from tests.support.builders.records import after

if TYPE_CHECKING:
    from sqlalchemy import Engine

KNOWN, NEW = "a" * 64, "b" * 64
FOUND: list[dict[str, Any]] = [
    {"model": "rating", "version": "1", "trusted": True, "description_sha256": KNOWN},
    {"model": "rating", "version": "2", "trusted": False, "description_sha256": NEW},
    {"model": "severity", "version": "4", "problem": "model.json cannot be used."},
]


@pytest.fixture(autouse=True)
def installation(
    monkeypatch: pytest.MonkeyPatch, database_url: str, database_engine: Engine
) -> None:
    """A database, and the folder's versions as the worker's command describes them."""
    monkeypatch.setenv("EPVS_DATABASE_URL", database_url)
    monkeypatch.setenv("EPVS_TRUSTED_MODELS", KNOWN)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(models_cli, "_run", lambda *_: FOUND)
    with unit_of_work(database_engine) as session:
        model_use.record_first(session, {"rating": "1", "severity": "3"}, now=after(0))
        model_use.shadow(session, "rating", "2", {}, operator="anna", now=after(1))


def run(*arguments: str) -> str:
    result = CliRunner().invoke(models_cli.app, arguments)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_each_version_has_its_role_and_who_decided() -> None:
    rows = {(row["model"], row["version"]): row for row in json.loads(run("list", "--json"))}
    roles = {key: (row["role"], row["operator"]) for key, row in rows.items()}
    assert roles == {
        ("rating", "1"): ("reported", "first worker"),
        ("rating", "2"): ("shadow", "anna"),
        ("severity", "3"): ("reported", "first worker"),
        ("severity", "4"): ("available", None),
    }
    assert rows["severity", "3"]["problem"] == "is not in the models' folder"
    assert len({frozenset(row) for row in rows.values()}) == 1  # the same keys in every row


def test_the_digests_to_trust_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = run("list") + capsys.readouterr().out
    assert f"EPVS_TRUSTED_MODELS={KNOWN},{NEW}" in shown.replace("\n", "")
    assert "severity 4: model.json cannot be used." in shown


def test_a_version_that_fails_its_check_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, database_engine: Engine
) -> None:
    def refuse(*_: str) -> list[dict[str, Any]]:
        raise EpvsError("model-not-trusted: Its origin is not known.")

    monkeypatch.setattr(models_cli, "_run", refuse)
    for command in ("promote", "shadow"):
        with pytest.raises(EpvsError, match="not known"):
            run(command, "rating", "2")
    with unit_of_work(database_engine) as session:
        assert model_use.read_versions(session, ModelRole.REPORTED)["rating"] == "1"
