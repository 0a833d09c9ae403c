"""The commands of docs/operation.md under "Backup and restore", on another, empty installation."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from tests.containers.conftest import Study
    from tests.containers.sender import Sender
    from tests.containers.stack import Stack


def commands(heading: str) -> str:
    """Return the block of commands below a line of the page."""
    page = (ROOT / "docs" / "operation.md").read_text()
    section = page.partition("## Backup and restore")[2].partition("\n## ")[0]
    (block,) = re.findall(rf"{re.escape(heading)}.*?```bash\n(.*?)```", section, re.DOTALL)
    return str(block)


def run(stack: Stack, text: str) -> None:
    """Run commands of the page in the folder of the installation."""
    adapted = text.replace("docker compose", " ".join(stack.command))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", adapted],
        cwd=stack.folder,
        env=stack.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{adapted}\n{done.stdout}{done.stderr}"


def test_a_backup_restores_studies_results_and_audit_trail(
    stack: Stack, sender: Sender, study: Study
) -> None:
    assert sender.send(study.folder).returncode == 0
    before = stack.wait_for(study.uid)
    run(stack, commands("To make a backup"))
    stack.compose("down", "--volumes", "--timeout", "20")
    run(stack, commands("To restore it"))
    node = ("receiver", "worker", "delivery", "housekeeper")
    stack.wait_healthy(*node, "postgres", "redis", "triton-cpu")
    assert stack.result(study.uid) == before
    stack.execute("housekeeper", "epvs-node", "audit", "verify")
    # Its files are there too: the study can be graded again.
    stack.execute("housekeeper", "epvs-node", "reprocess", study.uid)
    again = stack.wait_for(study.uid, lambda row: row != before and row["status"] == "delivered")
    assert again["rating"] == before["rating"]
    assert len(stack.reports(study.uid)) == 1
