"""Parts of the node: processes that are killed, paused and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psutil

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from node.embedded.supervision import ComponentState
    from tests.support.servers.hosts import Host

_END_S: Final = 45.0
"""Longer than a worker gives what it has in hand."""


class Part(ABC):
    """One process of the node, with its children."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def main(self) -> psutil.Process | None:
        """Its first process; None if it has ended."""

    @abstractmethod
    def start(self) -> bool:
        """Start it, without waiting for it to be ready; False if that has to be tried again."""

    def ended_by_itself(self) -> bool:
        """Whether it has ended although nobody ended it."""
        return False

    def children(self) -> list[psutil.Process]:
        """The processes that it started."""
        main = self.main()
        with suppress(psutil.NoSuchProcess):
            return main.children(recursive=True) if main else []
        return []

    def kill(self) -> None:
        """Kill its first process; children must notice by themselves."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end, as a rolling restart does; it is not waited for."""
        self._send(signal.SIGTERM)

    @abstractmethod
    def stop(self) -> None:
        """End it and everything that it started."""

    def _send(self, number: int) -> None:
        main = self.main()
        if main is not None:
            with suppress(psutil.NoSuchProcess):
                main.send_signal(number)


class Component(Part):
    """A component of ``epvs-node up``, which starts it again by itself.

    Parameters
    ----------
    name : str
    find : callable
        Returns the states of all components, by name; empty while the node does not run.
    """

    def __init__(self, name: str, find: Callable[[], Mapping[str, ComponentState]]) -> None:
        super().__init__(name)
        self._find, self._ended = find, 0

    def main(self) -> psutil.Process | None:
        state = self._find().get(self.name)
        if state is None or state.state != "running":
            return None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(state.pid)
        return None

    def start(self) -> bool:
        """Return whether it was started again, and is ready."""
        main = self.main()
        return main is not None and main.pid != self._ended

    def stop(self) -> None:
        """Do nothing: the node ends its components."""

    def _send(self, number: int) -> None:
        main = self.main()
        self._ended = main.pid if main is not None else 0
        super()._send(number)


class Supervised(Part):
    """A process that the campaign starts, and starts again when it has ended.

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
        super().__init__(name)
        self._host = host
        self._command = [sys.executable, "-m", *module]
        self._log, self._environment = log, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._is_meant_to_run = False
        self._ends_by = 0.0

    def start(self) -> bool:
        """Start it, unless it is still ending."""
        if self._process is not None and self._process.poll() is None:
            # Whoever stops a container kills it after a while: without a handler, which is not set
            # before a process has started, its first process ignores SIGTERM.
            if time.monotonic() > self._ends_by:
                self.kill()
            return False
        self._is_meant_to_run = True
        if self._host is not None:
            self._process = self._host.start(self._command, self._log, self._environment)
            return True
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
        return True

    def ended_by_itself(self) -> bool:
        return self._is_meant_to_run and (self._process is None or self._process.poll() is not None)

    def main(self) -> psutil.Process | None:
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

    def kill(self) -> None:
        self._is_meant_to_run = False
        super().kill()
        if self._process is not None:
            self._process.wait(10)

    def terminate(self) -> None:
        self._is_meant_to_run = False
        self._ends_by = time.monotonic() + _END_S
        super().terminate()

    def stop(self) -> None:
        self.terminate()
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        if self._host is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
