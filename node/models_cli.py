"""``epvs-node models``: which version of each model is reported, and which grades in shadow."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.settings import load_settings
from db import model_use
from db.clock import current_time
from db.enums import ModelRole
from node import display
from node.components import run_module
from node.database import open_database
from node.embedded.running import with_running_stack
from node.embedded.stack import environment_of
from node.operator import operator_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

app = typer.Typer(help="Versions of the models.", no_args_is_help=True)


class Model(StrEnum):
    """A model of the node."""

    RATING = "rating"
    SEVERITY = "severity"


ModelName = Annotated[Model, typer.Argument(help="rating or severity.")]
Version = Annotated[str, typer.Argument(help="Version folder in the models' folder.")]

_REPORTED = "is reported from the next study on"
_COLUMNS = (
    *("model", "version", "role", "since", "operator", "trained_on", "trusted"),
    *("studies_reported", "studies_in_shadow", "description_sha256"),
)


@app.command(name="list")
def list_versions(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the versions of each model, their roles and what they graded."""
    found = _run("list")
    with open_database(read_only=True) as session:
        rows = _describe(session, found)
    if as_json:
        print(json.dumps(rows, indent=2, default=str))
        return
    display.print_table(rows, list(_COLUMNS))
    for row in rows:
        if row["problem"]:
            display.step(f"{row['model']} {row['version']}: {row['problem']}")
    untrusted = {row["description_sha256"] for row in rows if row["trusted"] is False}
    if untrusted:
        digests = ",".join(sorted(untrusted | with_running_stack(load_settings()).trusted_digests))
        display.step(f"if you know who made what is not trusted: EPVS_TRUSTED_MODELS={digests}")


@app.command()
def promote(model: ModelName, version: Version) -> None:
    """Let a version be reported from the next study on."""
    _decide(model_use.promote, model, version, _REPORTED)


@app.command()
def rollback(model: ModelName) -> None:
    """Let the version that was reported before be reported again."""
    with open_database(read_only=True) as session:
        version = model_use.find_rollback(session, model.value)
    _decide(model_use.rollback, model, version, _REPORTED)


@app.command()
def shadow(model: ModelName, version: Version) -> None:
    """Let a version grade the same studies; its predictions are stored and never reported."""
    _decide(model_use.shadow, model, version, "grades in shadow from the next study on")


@app.command(name="end-shadow")
def end_shadow(model: ModelName) -> None:
    """Let no version of a model grade in shadow any more."""
    with open_database() as session:
        version = model_use.end_shadow(
            session, model.value, operator=operator_name(), now=current_time(session)
        )
    _say(model, version, "does not grade in shadow any more")


def _decide(decision: Callable[..., None], model: Model, version: str, effect: str) -> None:
    """Check a version, record the decision about it, and say what follows."""
    facts = _check(model, version)
    with open_database() as session:
        now = current_time(session)
        decision(session, model.value, version, facts, operator=operator_name(), now=now)
    _say(model, version, effect)


def _check(model: Model, version: str) -> dict[str, str]:
    """Check origin, files and self-test of a version; return its digests."""
    (facts,) = _run("check", model.value, version)
    return facts


def _run(*arguments: str) -> list[dict[str, Any]]:
    settings = with_running_stack(load_settings())
    lines = run_module("worker.commands.models", arguments, env=environment_of(settings))
    return [json.loads(line) for line in lines]


def _describe(session: Session, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add role and numbers of studies to the versions in the folder, and recorded ones it lacks."""
    counts = model_use.count_studies(session)
    roles = {
        (row.model, row.version): row
        for role in (ModelRole.SHADOW, ModelRole.REPORTED)
        for model in Model
        if (row := model_use.find_assignment(session, model.value, role)) and row.version
    }
    known = {(each["model"], each["version"]) for each in found}
    missing = [
        {"model": model, "version": version, "problem": "is not in the models' folder"}
        for model, version in roles.keys() - known
    ]
    rows = []
    for each in [*found, *missing]:
        key = each["model"], each["version"]
        held = roles.get(key)
        n_reported, n_shadow = counts.get(key, (0, 0))
        rows.append(
            {
                **dict.fromkeys((*_COLUMNS, "weights_sha256", "problem")),
                **each,
                "role": held.role.value if held else "available",
                "since": held.since if held else None,
                "operator": (held.operator or "first worker") if held else None,
                "studies_reported": n_reported,
                "studies_in_shadow": n_shadow,
            }
        )
    return rows


def _say(model: Model, version: str, what: str) -> None:
    display.step(f"{model.value} version {version} {what}")
