"""Embedded stack: a child process with its own process group and log file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

from core.errors import Unavailable
from core.permissions import PRIVATE_UMASK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


_LIBC: Final = ctypes.CDLL(None)  # loaded before any fork
_RANDOM: Final = random.SystemRandom()
_PORTS: Final = range(10_000, 32_000)
"""Below Linux's range of ephemeral ports, from which every outgoing connection takes one: a port
from there might be in use again by the time the server binds it."""
_PR_SET_PDEATHSIG: Final = 1
"""prctl(2): signal sent to a process when the thread that started it ends."""


def free_port() -> int:
    """Return a TCP port on loopback on which nothing listens."""
    while True:
        port = _RANDOM.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def accepts_connections(port: int, host: str = "127.0.0.1") -> bool:
    """Whether TCP connections to this address are accepted."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


class ManagedProcess:
    """A child process that this process starts and stops.

    The child leads its own process group: Ctrl-C on the terminal reaches only the stack, which then
    stops its children in order, and grandchildren end with their parent. The kernel kills the child
    when the thread that started it ends, so that a stack that was killed, or whose terminal was
    closed, leaves no process behind that occupies its ports.

    Parameters
    ----------
    name : str
        Its name in messages, e.g. ``"receiver"``.
    command : sequence of str
    log_path : Path
        Standard output and error are appended to this file.
    env : mapping, optional
        Variables added to the environment of this process.
    cwd : Path, optional
    grace_s : float
        After the request to end it is killed after this time.
    before_exec : callable, optional
        Called in the child before the command is started, like `subprocess.Popen`'s `preexec_fn`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        grace_s: float = 10.0,
        before_exec: Callable[[], None] = lambda: None,
    ) -> None:
        def prepare() -> None:
            _die_with_parent()
            before_exec()

        self.name = name
        self._grace_s = grace_s
        self._is_ending = False
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
                umask=PRIVATE_UMASK,
                preexec_fn=prepare,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._popen.poll() is None

    def describe_end(self) -> str:
        """Return how it ended, e.g. ``"killed by SIGKILL"``."""
        code = self._popen.poll()
        if code is None:
            return "has not ended"
        return f"ended with code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `ready` returns true; stop the process if that fails.

        Raises
        ------
        Unavailable
            The process ended, or was not ready in time; the message shows the end of its log.
        """
        try:
            self._wait_until(ready, timeout_s)
        except BaseException:  # Ctrl-C too: the caller does not hold the process yet
            self.stop()
            raise

    def _wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running():
                raise Unavailable(
                    self.name,
                    f"{self.name} {self.describe_end()} while starting.\n{self.log_tail()}",
                    f"Its log is {self.log_path}.",
                )
            if time.monotonic() > deadline:
                raise Unavailable(
                    self.name,
                    f"{self.name} was not ready within {timeout_s:.0f} s.\n{self.log_tail()}",
                    f"Its log is {self.log_path}.",
                )
            time.sleep(0.05)

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines of the log."""
        if not self.log_path.exists():
            return ""
        text = self.log_path.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def terminate(self) -> None:
        """Ask the process to end, once: a second request may mean to end at once."""
        if self.running() and not self._is_ending:
            self._is_ending = True
            self._popen.terminate()

    def stop(self, grace_s: float | None = None) -> None:
        """Terminate the process; kill its whole group after at most `grace_s` seconds."""
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(self._grace_s if grace_s is None else grace_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


def _die_with_parent() -> None:
    """Ask the kernel to kill this process with its parent; runs between fork and exec."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
