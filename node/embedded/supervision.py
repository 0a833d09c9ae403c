"""Embedded stack: restarts a component that has ended, and says what state it is in.

Only the end of a process is a fault here. A process that is slow or does not respond is left alone:
no component can tell these two apart from outside, and restarting a slow one would cost the study
in hand. Whoever waits for it has a deadline of its own, and ``epvs-node doctor`` asks each one.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from core.errors import EpvsError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 30.0
"""Longest time between two attempts to start a component; waits double up to it."""
STEADY_S: Final = 60.0
"""A component that was ready for this long is restarted at once when it ends."""
_STOP_STARTING_S: Final = 10.0
_POLL_S: Final = 0.05
_LONGEST_LINE: Final = 300


class Process(Protocol):
    """What is supervised: a process, or a server and its own processes."""

    log_path: Path
    """File with its output."""

    @property
    def pid(self) -> int | None:
        """Process id, which is also the id of its process group."""

    def running(self) -> bool:
        """Whether all of it is alive."""

    def describe_end(self) -> str:
        """How it ended, e.g. ``"killed by SIGKILL"``."""

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines of its log."""

    def terminate(self) -> None:
        """Ask it to end, without waiting."""

    def stop(self, grace_s: float | None = None) -> None:
        """End what is left of it, by force after `grace_s` (None: the time that is its own)."""


@dataclass(frozen=True, slots=True)
class ComponentState:
    """State of a component, as ``epvs-node doctor`` and the console show it.

    Parameters
    ----------
    name : str
    state : str
        ``"running"``, ``"starting"`` or ``"waiting"`` for the next attempt to start it.
    pid : int
        Process id; 0 while it is waiting.
    since : str
        When that state began: ISO 8601, UTC.
    restarts : int
        How often it was started again since the stack was started.
    last_exit : str
        How it ended the last time; empty if it never did.
    last_exit_at : str
        When: ISO 8601, UTC.
    next_try : str
        When it will be started, if it is waiting: ISO 8601, UTC.
    log : str
        Path of its log.
    """

    name: str
    state: str
    pid: int
    since: str
    restarts: int
    last_exit: str
    last_exit_at: str
    next_try: str
    log: str

    def as_dict(self) -> dict[str, Any]:
        """Return the state in a form that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.state} since {self.since}"
        if self.next_try:
            text += f" to be started again at {self.next_try}"
        if self.last_exit:
            text += f"; restarts: {self.restarts}, {self.last_exit} at {self.last_exit_at}"
        return text


class Component:
    """One component of the stack, over all its restarts.

    Parameters
    ----------
    name : str
    launch : callable
        Starts its process and returns it without waiting; raises `EpvsError` or `OSError`.
    is_ready : callable
        Whether the process that was launched last does its work.
    start_timeout_s : float
        A process that is not ready after this time is stopped and counts as ended.
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[], Process],
        is_ready: Callable[[], bool],
        *,
        start_timeout_s: float,
    ) -> None:
        self.name = name
        self.process: Process | None = None
        self._launch = launch
        self._is_ready = is_ready
        self._start_timeout_s = start_timeout_s
        self._restarts = 0
        self._failures = 0
        """Ends in a row without `STEADY_S` of work in between."""
        self._last_exit = self._last_exit_at = self._next_try = self._log = ""
        self._enter("waiting")
        self._try_at = 0.0

    @property
    def state(self) -> ComponentState:
        """Its state now."""
        return ComponentState(
            name=self.name,
            state=self._state,
            pid=(self.process.pid if self.process is not None else 0) or 0,
            since=self._since,
            restarts=self._restarts,
            last_exit=self._last_exit,
            last_exit_at=self._last_exit_at,
            next_try=self._next_try,
            log=self._log,
        )

    def launch(self) -> None:
        """Start it for the first time, without waiting.

        Raises
        ------
        EpvsError
            It cannot be started.
        """
        self.process = self._launch()
        self._log = str(self.process.log_path)
        self._enter("starting")

    def wait_until_ready(self) -> None:
        """Wait for the end of its first start.

        Raises
        ------
        Unavailable
            It ended, or was not ready in time; shows the end of its log.
        """
        while self._state == "starting":
            if problem := self._examine_start():
                log = self.process.log_tail() if self.process else ""
                raise Unavailable(
                    self.name, f"{self.name} {problem}.\n{log}", f"Its log is {self._log}."
                )
            time.sleep(_POLL_S)

    def supervise(self) -> str:
        """Take the next step towards a component that runs; never waits for it.

        Returns
        -------
        str
            What happened, for the console; empty if nothing did.
        """
        if self._state == "waiting":
            return self._restart() if time.monotonic() >= self._try_at else ""
        if self._state == "starting":
            if problem := self._examine_start():
                return self._fail(f"{problem}{self._last_line()}")
            return "runs again" if self._state == "running" else ""
        if self.process is not None and self.process.running():
            return ""
        if time.monotonic() - self._entered_at >= STEADY_S:
            self._failures = 0
        return self._fail(self.process.describe_end() if self.process else "ended")

    def terminate(self) -> None:
        """Ask it to end, without waiting; `stop` then waits."""
        if self.process is not None:
            self.process.terminate()

    def stop(self) -> None:
        """End it and what its processes have started."""
        if self.process is not None:
            # One that is still starting has nothing in hand.
            self.process.stop(None if self._state == "running" else _STOP_STARTING_S)
            self.process = None

    def _enter(self, state: str) -> None:
        self._state, self._since = state, _clock(0.0)
        self._entered_at = time.monotonic()
        self._next_try = ""

    def _examine_start(self) -> str:
        """Note that it is ready, or return why the start has failed."""
        if self.process is None or not self.process.running():
            end = self.process.describe_end() if self.process else "ended"
            return f"{end} while starting"
        if self._is_ready():
            self._enter("running")
        elif time.monotonic() - self._entered_at > self._start_timeout_s:
            return f"was not ready within {self._start_timeout_s:.0f} s"
        return ""

    def _last_line(self) -> str:
        line = self.process.log_tail(1) if self.process is not None else ""
        return f": {line[:_LONGEST_LINE]}" if line else ""

    def _fail(self, problem: str) -> str:
        self.stop()  # its own processes may have survived it
        self._last_exit, self._last_exit_at = problem, _clock(0.0)
        wait_s = 0.0
        if self._failures:  # the first may be an accident
            wait_s = min(FIRST_WAIT_S * 2 ** (self._failures - 1), LONGEST_WAIT_S)
        self._failures += 1
        self._enter("waiting")
        self._try_at = time.monotonic() + wait_s
        self._next_try = _clock(wait_s)
        return f"{problem}; starts again " + (f"in {wait_s:.0f} s" if wait_s else "now")

    def _restart(self) -> str:
        self._restarts += 1
        try:
            self.launch()
        except (EpvsError, OSError) as error:
            return self._fail(f"cannot be started: {error}")
        return ""


def _clock(offset_s: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=offset_s)).isoformat(" ", "seconds")
