"""``epvs-node up`` as its operator runs it, with storescp as destination."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pydicom
from pydicom.uid import ComprehensiveSRStorage

from core.settings import load_settings
from db.session import create_engine, unit_of_work
from db.views import read_view
from node import sending
from node.embedded.running import running_components
from tests.support.paths import ROOT
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import wait_until
from tests.support.servers.storescp import run_storescp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from node.embedded.supervision import ComponentState


@dataclass
class Up:
    """A node that was started by ``epvs-node up``."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    port: int
    log: Path
    """What it printed."""
    received: Path
    """What its destination has received."""

    @property
    def output(self) -> str:
        return self.log.read_text()

    def components(self) -> dict[str, ComponentState]:
        states = running_components(load_settings(data_dir=self.data_dir))
        return {state.name: state for state in states}

    def wait_until_ready(self, timeout_s: float = 240) -> None:
        wait_until(lambda: self.process.poll() is not None or self.components(), timeout_s)
        assert self.process.poll() is None, self.output

    def wait_until_all_run(self, timeout_s: float = 120) -> None:
        def all_run() -> bool:
            return all(each.state == "running" for each in self.components().values())

        wait_until(all_run, timeout_s)

    def send(self, study: Path) -> None:
        sending.send([study], f"EPVSNODE@127.0.0.1:{self.port}")

    def studies(self) -> dict[str, str]:
        """Study UIDs and states in ``worklist_results``."""
        engine = create_engine(f"sqlite:///{self.data_dir / 'epvs.sqlite'}")
        try:
            with unit_of_work(engine, read_only=True) as session:
                rows = read_view(session, "worklist_results")
        finally:
            engine.dispose()
        return {row["study_uid"]: row["status"] for row in rows}

    def wait_for(self, study_uid: str, *states: str, timeout_s: float = 180) -> None:
        wait_until(lambda: self.studies().get(study_uid) in states, timeout_s)

    def n_reports(self, study_uid: str) -> int:
        """Number of structured reports on the study that the destination has."""
        headers = [
            pydicom.dcmread(path, specific_tags=["SOPClassUID", "StudyInstanceUID"])
            for path in self.received.iterdir()
        ]
        return sum(
            header.StudyInstanceUID == study_uid and header.SOPClassUID == ComprehensiveSRStorage
            for header in headers
        )

    def end(self, number: signal.Signals = signal.SIGINT, timeout_s: float = 60) -> int:
        """Send a signal; return the exit code."""
        if self.process.poll() is None:
            os.kill(self._node().pid, number)
        return self.process.wait(timeout_s)

    def processes(self) -> list[psutil.Process]:
        """Return its processes and their own, the node first."""
        node = self._node()
        return [node, *node.children(recursive=True)]

    def _node(self) -> psutil.Process:
        return psutil.Process(self.process.pid)


@contextmanager
def run_up(
    folder: Path,
    data_dir: Path,
    command: Sequence[str] = (sys.executable, "-m", "node", "up"),
    **settings: str,
) -> Iterator[Up]:
    """Start the node; end it and its processes."""
    port, log = free_port(), folder / "up.log"
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("EPVS_")}
    with run_storescp(folder, None) as destination:
        variables = {
            "EPVS_PORT": str(port),
            "EPVS_DESTINATIONS": destination.name,
            "EPVS_QUIET_PERIOD_S": "1",
            "EPVS_SWEEP_INTERVAL_S": "0.2",
            "EPVS_LEASE_S": "10",
            "EPVS_SPOOL_RESERVE_MB": "0",
            **settings,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(command), cwd=ROOT, env=inherited | variables, stdout=output, stderr=output
            )
        up = Up(process, data_dir, port, log, folder / "received")
        try:
            yield up
        finally:
            if process.poll() is None:
                for each in up.processes():
                    each.kill()
                process.wait()
