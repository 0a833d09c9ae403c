"""The operator's command line against the running node."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from node.embedded.stack import environment_of
from tests.paths import ROOT
from tests.system.studies import copy_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Node


def _run(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("EPVS_")}
    return subprocess.run(
        [sys.executable, "-m", "node", *arguments],
        cwd=ROOT,
        env={**environment, **environment_of(node.stack.settings)},
        capture_output=True,
        text=True,
        check=False,
    )


def _json(node: Node, *arguments: str) -> Any:
    answer = _run(node, *arguments, "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_doctor_finds_everything_in_order(node: Node) -> None:
    checks = {check["name"]: check for check in _json(node, "doctor")}
    assert [name for name, check in checks.items() if not check["ok"]] == []
    assert {"spool", "callers", "database", "broker", "workers", "Triton"} < set(checks)
    assert any(name.startswith("destination DEMOPACS@") for name in checks)


def test_a_study_from_sending_to_reprocessing(
    node: Node, synthetic_study: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    study_uid = copy_study(synthetic_study, folder)
    sent = _run(node, "send", str(folder))
    assert sent.returncode == 0, sent.stderr
    first = node.wait(study_uid)

    listed = {row["study_uid"]: row for row in _json(node, "studies", "--status", "delivered")}
    assert listed[study_uid]["rating"] == first["rating"]
    story = _json(node, "show", study_uid)
    verdicts = [verdict["reason"] for verdict in story["revisions"][0]["verdicts"]]
    assert verdicts.count("selected") == 1
    assert "Not for clinical use" in _run(node, "show", study_uid).stdout

    assert _run(node, "reprocess", study_uid).returncode == 0
    node.wait_for(study_uid, lambda row: row["revision"] == 2 and row["status"] == "delivered")
    reports = [
        dataset
        for content in node.pacs.instances(study_uid)
        if (dataset := pydicom.dcmread(io.BytesIO(content))).Modality == "SR"
    ]
    assert len(reports) == 2
    (newer,) = [report for report in reports if "PredecessorDocumentsSequence" in report]
    assert first["sr_uid"] in newer.PredecessorDocumentsSequence[0].to_json()

    verified = _run(node, "audit", "verify")
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
    node: Node, arguments: list[str], code: int, message: str
) -> None:
    answer = _run(node, *arguments)
    assert answer.returncode == code
    assert message in " ".join(answer.stderr.split())
    assert "Traceback" not in answer.stderr + answer.stdout
