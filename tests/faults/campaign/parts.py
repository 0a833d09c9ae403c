"""Parts of the node: processes that are killed, paused and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psutil

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.servers.hosts import Host

_TERM_S: Final = 60.0


class Part:
    """One process of the node, with its children.

    Parameters
    ----------
    name : str
    module : sequence of str
        Python module and arguments.
    log : Path
    environment : mapping
    host : Host, optional
        Where it runs; by default on this machine.
    """

    def __init__(
        self,
        name: str,
        module: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        host: Host | None = None,
    ) -> None:
        self.name, self.host = name, host
        self._command = [sys.executable, "-m", *module]
        self._log, self._environment = log, environment
        self._process: subprocess.Popen[bytes] | None = None
        self.is_meant_to_run = False

    def start(self) -> None:
        """Start it, without waiting for it to be ready."""
        self.is_meant_to_run = True
        if self.host is not None:
            self._process = self.host.start(self._command, self._log, self._environment)
            return
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("EPVS_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command],
                cwd=ROOT,
                env=inherited | dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ended_by_itself(self) -> bool:
        """Whether it has ended although nobody ended it."""
        return self.is_meant_to_run and (self._process is None or self._process.poll() is not None)

    def main(self) -> psutil.Process | None:
        """Its first process; None if it has ended."""
        if self._process is None or self._process.poll() is not None:
            return None
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            while process.name() in ("unshare", "ip", "setpriv"):  # which start it on its host
                (process,) = process.children() or (None,)  # type: ignore[assignment]
                if process is None:
                    return None
            return process
        return None

    def children(self) -> list[psutil.Process]:
        """The processes that it started."""
        main = self.main()
        with suppress(psutil.NoSuchProcess):
            return main.children(recursive=True) if main else []
        return []

    def kill(self) -> None:
        """Kill its first process; children must notice by themselves."""
        self.is_meant_to_run = False
        main = self.main()
        if main is not None:
            with suppress(psutil.NoSuchProcess):
                main.kill()
        if self._process is not None:
            self._process.wait(10)

    def terminate(self) -> None:
        """Ask it to end, as a rolling restart does; it is not waited for."""
        self.is_meant_to_run = False
        main = self.main()
        if main is not None:
            with suppress(psutil.NoSuchProcess):
                main.send_signal(signal.SIGTERM)

    def is_running(self) -> bool:
        """Whether its first process has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it and everything that it started."""
        self.terminate()
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if self.host is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start it after `terminate`, once it has ended."""
        deadline = time.monotonic() + _TERM_S
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.is_running():
            raise RuntimeError(f"{self.name} has not ended {_TERM_S:.0f} s after SIGTERM")
        self.start()
