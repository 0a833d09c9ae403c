"""The operator's command line against the running node."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Protocol

import pydicom
import pytest

from node.cli import main
from node.embedded.stack import environment_of
from tests.support.builders.synthetic_studies import copy_study
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Node


class Run(Protocol):
    """Runs one command line."""

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def run(node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: starting Python anew would take longer than the work."""
    for name in [name for name in os.environ if name.startswith("EPVS_")]:
        monkeypatch.delenv(name)
    for name, value in environment_of(node.stack.settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)

    def run_here(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["epvs-node", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        output, errors = capsys.readouterr()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, output, errors)

    return run_here


def _json(run: Run, *arguments: str) -> Any:
    answer = run(*arguments, "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_doctor_finds_everything_in_order(node: Node) -> None:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("EPVS_")}
    answer = subprocess.run(
        [sys.executable, "-m", "node", "doctor", "--json"],
        cwd=ROOT,
        env={**environment, **environment_of(node.stack.settings)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    checks = {check["name"]: check for check in json.loads(answer.stdout)}
    assert [name for name, check in checks.items() if not check["ok"]] == []
    assert {"spool", "callers", "database", "broker", "workers", "Triton"} < set(checks)
    assert any(name.startswith("destination DEMOPACS@") for name in checks)


def test_the_components_do_not_know_the_owner_of_the_database(node: Node) -> None:
    settings = node.stack.settings
    assert "epvs_node@" in settings.database_url
    assert settings.database_owner_url == ""


def test_a_study_from_sending_to_reprocessing(
    node: Node, run: Run, synthetic_study: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    study_uid = copy_study(synthetic_study, folder)
    sent = run("send", str(folder))
    assert sent.returncode == 0, sent.stderr
    first = node.wait(study_uid)

    listed = {row["study_uid"]: row for row in _json(run, "studies", "--status", "committed")}
    assert listed[study_uid]["rating"] == first["rating"]
    story = _json(run, "show", study_uid)
    verdicts = [verdict["reason"] for verdict in story["revisions"][0]["verdicts"]]
    assert verdicts.count("selected") == 1
    assert "Not for clinical use" in run("show", study_uid).stdout

    assert run("reprocess", study_uid).returncode == 0
    node.wait_for(study_uid, lambda row: row["revision"] == 2 and row["status"] == "committed")
    reports = [
        dataset
        for content in node.pacs.instances(study_uid)
        if (dataset := pydicom.dcmread(io.BytesIO(content))).Modality == "SR"
    ]
    assert len(reports) == 2
    (newer,) = [report for report in reports if "PredecessorDocumentsSequence" in report]
    assert first["sr_uid"] in newer.PredecessorDocumentsSequence[0].to_json()

    verified = run("audit", "verify")
    assert verified.returncode == 0
    assert "chain intact" in verified.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "1.2.3"], 1, "Study 1.2.3 is not known here"),
        (["send", "no-such-folder"], 1, "no-such-folder does not exist"),
        (["send", "README.md", "--to", "nowhere"], 2, "AE@host:port"),
        (["send", "README.md"], 1, "not a DICOM Part 10 instance"),
        (["frobnicate"], 2, "No such command"),
        (["studies", "--status", "finished"], 2, "'rejected', 'failed'"),
        (["demo", "no-such-folder"], 1, "no-such-folder does not exist"),
    ],
)
def test_failures_are_explained_without_a_traceback(
    run: Run, arguments: list[str], code: int, message: str
) -> None:
    answer = run(*arguments)
    assert answer.returncode == code
    assert message in " ".join(answer.stderr.split())
    assert "Traceback" not in answer.stderr + answer.stdout
