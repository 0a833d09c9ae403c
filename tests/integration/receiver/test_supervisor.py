"""Processes are replaced when they die, and end with their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from receiver.supervisor import CANNOT_START, Occupancy
from tests.support.paths import ROOT
from tests.support.servers.receiver import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Each process names a file after its slot and number, and then waits as the receiver does.
BODY = """
import os, signal, sys
from pathlib import Path
from receiver.supervisor import Supervisor, open_signals, wait_for_stop

folder, behaviour = Path(sys.argv[1]), sys.argv[2]

def serve(slot, parent_alive):
    if behaviour == "cannot-start":
        return 1
    signals = open_signals((signal.SIGTERM,))
    (folder / f"{slot}-{os.getpid()}").touch()
    if behaviour == "ignores-sigterm":
        while True:
            signal.pause()
    wait_for_stop(signals, parent_alive)
    return 0

sys.exit(Supervisor(serve, 2, stop_deadline_s=1.0).run())
"""


@contextmanager
def supervised(folder: Path, behaviour: str = "normal") -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", BODY, str(folder), behaviour], cwd=ROOT)
    try:
        yield process
    finally:
        for child in alive(folder):
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()


def alive(folder: Path) -> dict[int, int]:
    """Return the slot of each running process, by its number."""
    named = (path.name.split("-") for path in folder.iterdir())
    return {int(pid): int(slot) for slot, pid in named if is_running(int(pid))}


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_killed_process_is_replaced_and_the_other_goes_on(tmp_path: Path) -> None:
    with supervised(tmp_path) as supervisor:
        before = wait_until(lambda: found if len(found := alive(tmp_path)) == 2 else None)
        victim, other = before
        os.kill(victim, signal.SIGKILL)
        after = wait_until(
            lambda: found if len(found := alive(tmp_path)) == 2 and victim not in found else None
        )
        assert other in after
        assert set(after.values()) == {0, 1}
        supervisor.terminate()
        assert supervisor.wait(timeout=30) == 0
        assert not alive(tmp_path)


def test_processes_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path) as supervisor:
        wait_until(lambda: len(alive(tmp_path)) == 2)
        supervisor.kill()
        wait_until(lambda: not alive(tmp_path), timeout_s=10)


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path, "ignores-sigterm") as supervisor:
        wait_until(lambda: len(alive(tmp_path)) == 2)
        supervisor.terminate()
        assert supervisor.wait(timeout=30) == 0
        assert not alive(tmp_path)


def test_a_process_that_cannot_start_is_not_restarted(tmp_path: Path) -> None:
    with supervised(tmp_path, "cannot-start") as supervisor:
        assert supervisor.wait(timeout=30) == CANNOT_START


def test_every_process_sees_the_associations_of_the_others() -> None:
    occupancy = Occupancy(2, 4)
    pid = os.fork()
    if not pid:
        for caller in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            occupancy.add(1, caller)
        os._exit(0)
    os.waitpid(pid, 0)
    occupancy.add(0, "192.0.2.1")
    assert occupancy.n_open() == 4
    assert [occupancy.n_of(f"192.0.2.{number}") for number in (1, 2, 3)] == [3, 1, 0]
    occupancy.remove(0, "192.0.2.1")
    assert (occupancy.n_open(), occupancy.n_of("192.0.2.1")) == (3, 2)
    occupancy.clear(1)  # the process was replaced
    assert occupancy.n_open() == 0
