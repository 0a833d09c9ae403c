"""Pages of docs/, compared with the code that they describe."""

from __future__ import annotations

import ast
import re

import pytest
import typer.main
from typer.core import TyperGroup

from core.commitment import ReportRefusal
from core.settings import SHIPPED_MODELS_DIR, Settings
from db.enums import RevisionState
from db.views import VIEWS
from node.cli import app
from receiver import admission
from receiver.pdu import AbortReason
from receiver.status import Status
from tests.support.paths import ROOT
from worker.grading.stages.report import codes

DOCS = ROOT / "docs"


def read(page: str) -> str:
    """Text of a page."""
    return (DOCS / page).read_text()


def as_documented(value: object) -> str:
    """How the tables of settings write a default."""
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


def failure_codes() -> set[str]:
    """Every code that the service raises `Failed` or ends an attempt with."""
    found = set()
    for path in (p for folder in ("core", "db", "worker") for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("Failed", "AttemptFailed")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value))
    return found


def first_column(page: str, heading: str) -> set[str]:
    """Every code in the first column of the table under `heading`."""
    section = read(page).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return {code for cell in cells for code in re.findall(r"`([^`]+)`", cell)}


def test_every_setting_is_listed_with_its_default() -> None:
    rows = re.findall(r"^\| `EPVS_(\w+)` \| (.+?) \|", read("settings.md"), re.MULTILINE)
    defaults = {n.upper(): as_documented(f.default) for n, f in Settings.model_fields.items()}
    assert len(rows) == len(defaults)
    assert dict(rows) == defaults


def test_every_setting_that_a_page_names_exists() -> None:
    names = {f"EPVS_{name.upper()}" for name in Settings.model_fields}
    known = names | {f"{name}_FILE" for name in names} | {"EPVS_CONFIG"}
    pages = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for page in pages:
        named = set(re.findall(r"EPVS_[A-Z_]+[A-Z]", page.read_text()))
        assert named <= known, page


def test_every_command_is_listed() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    page = read("operation.md")
    documented = re.findall(r"^epvs-node ([a-z]+(?: [a-z][a-z-]*)*)", page, re.MULTILINE)
    assert {line.strip() for line in documented} == commands(root)


def test_every_column_of_the_views_is_listed() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| (`.+`) \|$", read("sql.md"), re.MULTILINE))
    documented = {name: re.findall(r"`(\w+)`", columns) for name, columns in rows.items()}
    assert documented == {name: [c.name for c in view.columns] for name, view in VIEWS.items()}


def test_every_c_store_status_is_listed() -> None:
    documented = re.findall(r"^\| C-STORE `0x([0-9A-F]{4})`", read("pacs.md"), re.MULTILINE)
    assert [int(status, 16) for status in documented] == sorted(Status)


def test_every_state_is_listed() -> None:
    assert first_column("operation.md", "States of a study") == {str(s) for s in RevisionState}


def test_every_reason_for_no_grade_is_listed_with_its_code() -> None:
    page = read("troubleshooting.md")
    row = re.compile(r"^\| `([a-z0-9-]+)` \| `(NG\w+)` \| (.+?) \| .+ \|$", re.MULTILINE)
    expected = [(str(reason), code.value, code.meaning) for reason, code in codes.REASONS.items()]
    assert row.findall(page) == expected


def test_every_failure_code_is_listed() -> None:
    assert failure_codes() <= first_column("troubleshooting.md", "Study failed")


def test_every_reason_for_refusing_a_sender_is_listed() -> None:
    refusals = {v.reason for v in vars(admission).values() if isinstance(v, admission.Refusal)}
    aborts = {reason.name.lower().replace("_", "-") for reason in AbortReason}
    reports = set(ReportRefusal)
    assert refusals | aborts | reports <= first_column("troubleshooting.md", "Sender refused")


@pytest.mark.parametrize("folder", ["decisions", "results"])
def test_every_page_of_a_folder_is_in_its_index(folder: str) -> None:
    pages = {path.name for path in (DOCS / folder).glob("*.md")} - {"index.md"}
    assert set(re.findall(r"\((\w[\w-]*\.md)\)", read(f"{folder}/index.md"))) >= pages


def test_every_test_that_shows_a_fault_exists() -> None:
    page = read("faults.md")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page)
    assert len(named) == page.count("::test_")
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).exists() or f"def {test}(" not in (ROOT / path).read_text()
    ]
    assert not missing


def test_every_family_of_attacks_is_in_the_threat_model() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", read("security.md")))
    assert named == {path.name for path in (ROOT / "tests" / "attacks").glob("test_*.py")}


def test_every_file_that_a_page_names_exists() -> None:
    """Paths in backquotes; those of a run or a site's own files are made by the reader."""
    folders = "core|db|docker|docs|node|receiver|tests|training|triton_models|worker"
    path_in_text = re.compile(rf"`((?:{folders})/[\w./-]*\w/?)(?:::\w+)?`")
    pages = [*DOCS.glob("*.md"), *DOCS.glob("decisions/*.md"), ROOT / "README.md"]
    for page in [*pages, ROOT / "CONTRIBUTING.md"]:
        missing = {p for p in path_in_text.findall(page.read_text()) if not (ROOT / p).exists()}
        assert not missing, page
