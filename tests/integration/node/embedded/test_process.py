"""Child processes: started, watched, and stopped with their own children."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import Unavailable
from node.embedded.memory import peak_memory_mb
from node.embedded.process import ManagedProcess
from tests.support.paths import ROOT

PARENT = """
import subprocess, sys, time
code = "import time; x = bytearray(80_000_000); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code])
print(child.pid, flush=True)
time.sleep(60)
"""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def test_stop_ends_grandchildren_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = ManagedProcess("parent", [sys.executable, "-c", PARENT], log)
    process.wait_until(lambda: log.read_text().strip().isdigit(), timeout_s=20)
    grandchild = int(log.read_text())
    deadline = time.monotonic() + 20
    while peak_memory_mb(process.pid) < 80 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert peak_memory_mb(process.pid) >= 80  # the grandchild's memory is counted
    process.stop()
    assert not process.running()
    deadline = time.monotonic() + 30
    while _alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(grandchild)


def test_a_killed_parent_leaves_nothing_running(tmp_path: Path) -> None:
    """Else the parts hold their ports, and the stack cannot be started again."""
    code = (
        "import sys, time; from pathlib import Path; "
        "from node.embedded.process import ManagedProcess; "
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']; "
        f"print(ManagedProcess('part', sleep, Path({str(tmp_path / 'part')!r})).pid, flush=True); "
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    with parent.stdout:
        part = int(parent.stdout.readline())
    assert _alive(part)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while _alive(part) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(part)


def test_a_process_that_ends_while_starting_is_explained(tmp_path: Path) -> None:
    process = ManagedProcess(
        "broken", [sys.executable, "-c", "raise SystemExit('no such disk')"], tmp_path / "log"
    )
    with pytest.raises(Unavailable, match="no such disk"):
        process.wait_until(lambda: False, timeout_s=20)


def test_a_process_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    process = ManagedProcess(
        "slow", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log"
    )
    with pytest.raises(Unavailable, match=r"not ready within 0 s"):
        process.wait_until(lambda: False, timeout_s=0.2)
    assert not process.running()
