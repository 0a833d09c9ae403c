"""Pages of docs/, held against the code that they describe."""

from __future__ import annotations

import re

import typer.main
from typer.core import TyperGroup

from core.settings import SHIPPED_MODELS_DIR, Settings
from db.enums import RevisionState
from db.views import VIEWS
from node.cli import app
from receiver.status import Status
from tests.support.paths import ROOT
from worker.grading.stages.report import codes

PAGE = (ROOT / "docs" / "operations.md").read_text()


def as_documented(value: object) -> str:
    """How the table of settings writes a default."""
    if value == "":
        return "empty"
    if value == SHIPPED_MODELS_DIR:
        return "the models in the package"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def commands(group: TyperGroup, prefix: str = "") -> set[str]:
    """Every command of the command line, as it is typed."""
    found: set[str] = set()
    for name, command in group.commands.items():
        typed = f"{prefix}{name}"
        found |= commands(command, f"{typed} ") if isinstance(command, TyperGroup) else {typed}
    return found


def test_every_setting_is_listed_with_its_default() -> None:
    documented = dict(re.findall(r"^\| `EPVS_(\w+)` \| (.+?) \|", PAGE, re.MULTILINE))
    defaults = {n.upper(): as_documented(f.default) for n, f in Settings.model_fields.items()}
    assert documented == defaults


def test_every_command_is_listed() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    documented = re.findall(r"^epvs-node ([a-z]+(?: [a-z]+)*)", PAGE, re.MULTILINE)
    assert {line.strip() for line in documented} == commands(root)


def test_every_column_of_the_views_is_listed() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| (`.+`) \|$", PAGE, re.MULTILINE))
    documented = {name: re.findall(r"`(\w+)`", columns) for name, columns in rows.items()}
    assert documented == {name: [c.name for c in view.columns] for name, view in VIEWS.items()}


def test_every_c_store_status_and_every_state_is_listed() -> None:
    documented = re.findall(r"^\| C-STORE `0x([0-9A-F]{4})`", PAGE, re.MULTILINE)
    assert [int(status, 16) for status in documented] == sorted(Status)
    for state in RevisionState:
        assert f"`{state}`" in PAGE


def test_every_reason_for_no_grade_is_listed_with_its_code() -> None:
    documented = re.findall(r"^\| `([a-z0-9-]+)` \| `(NG\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
    expected = [(str(reason), code.value, code.meaning) for reason, code in codes.REASONS.items()]
    assert documented == expected


def test_every_test_that_shows_a_fault_exists() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page)
    assert len(named) == page.count("::test_")
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).exists() or f"def {test}(" not in (ROOT / path).read_text()
    ]
    assert not missing
