"""``make demo``: the project's promise to a new user, kept on a synthetic study and SQLite."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from core.permissions import is_private
from tests.support.paths import ROOT
from tests.support.shipped_models import newest_description

if TYPE_CHECKING:
    from pathlib import Path


def test_demo_shows_what_each_user_sees_and_leaves_nothing_running(tmp_path: Path) -> None:
    work_dir = tmp_path / "demo"
    demo = subprocess.run(
        [sys.executable, "-m", "node", "demo", "--synthetic", "--work-dir", work_dir],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("EPVS_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    text = " ".join(demo.stdout.split())
    description = newest_description("rating")
    assert description["intended_use"] in text
    assert "worklist_results" in text
    assert "rating_model" in text
    assert (work_dir / "result" / "report.dcm").is_file()
    assert (work_dir / "result" / "picture-1.png").is_file()
    left = [path for path in [work_dir, *work_dir.rglob("*")] if not path.is_symlink()]
    assert {path.suffix for path in left} >= {".sqlite", ".dcm", ".log", ".aof"}
    assert [path for path in left if not is_private(path)] == []
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(work_dir) not in processes.stdout
