"""Several receiver processes that share a port, each replaced when it dies.

The kernel distributes connections over the listening processes (SO_REUSEPORT). A process that dies
loses only its own associations, which their senders repeat. The supervisor forks before a process
has anything that does not survive a fork: threads, database connections, sockets.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import select
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

CANNOT_START: Final = 1
"""Exit code of a process that could not start to listen."""
_STEADY_S: Final = 10.0
"""A process that ran at least this long is replaced at once."""
_LONGEST_WAIT_S: Final = 30.0
_FIRST_WAIT_S: Final = 0.5
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_FREE: Final = 0


class Occupancy:
    """The open associations of all processes and whose they are, in shared memory.

    Each process has cells of its own and alone writes to them; a cell of an open association holds
    a digest of its caller.

    Parameters
    ----------
    n_processes : int
    n_associations : int
        Most that one process can have open.
    """

    def __init__(self, n_processes: int, n_associations: int) -> None:
        self._n_cells = n_associations
        # Anonymous and shared: created before the forks, freed with the last process.
        self._cells = memoryview(mmap.mmap(-1, 8 * n_processes * n_associations)).cast("Q")

    def clear(self, slot: int) -> None:
        """Forget what an earlier process in `slot` had open."""
        for number in self._cells_of(slot):
            self._cells[number] = _FREE

    def add(self, slot: int, caller: str) -> None:
        """Count an association that the process in `slot` has accepted."""
        self._cells[self._find(slot, _FREE)] = _digest(caller)

    def remove(self, slot: int, caller: str) -> None:
        """No longer count an association that was added."""
        self._cells[self._find(slot, _digest(caller))] = _FREE

    def n_open(self) -> int:
        """Return the number of open associations in all processes."""
        return len(self._cells) - self._cells.tolist().count(_FREE)

    def n_of(self, caller: str) -> int:
        """Return the number of open associations of one caller in all processes."""
        return self._cells.tolist().count(_digest(caller))

    def _cells_of(self, slot: int) -> range:
        return range(slot * self._n_cells, (slot + 1) * self._n_cells)

    def _find(self, slot: int, value: int) -> int:
        return next(number for number in self._cells_of(slot) if self._cells[number] == value)


def _digest(caller: str) -> int:
    digest = hashlib.blake2b(caller.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


@dataclass(slots=True)
class _Slot:
    """One of the processes, over all its restarts."""

    number: int
    pid: int = 0
    """0 while it is not running."""
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    """Early exits in a row."""
    starts: int = 0


class Supervisor:
    """Keeps `n_processes` running.

    Parameters
    ----------
    serve : callable
        Body of a process; is given the number of its slot and a file descriptor, `parent_alive`,
        and returns the exit code. It must end on SIGTERM and when the descriptor becomes readable.
    n_processes : int
    stop_deadline_s : float
        Longest time from SIGTERM to the end of a process.
    """

    def __init__(
        self, serve: Callable[[int, int], int], n_processes: int, stop_deadline_s: float
    ) -> None:
        self._serve = serve
        self._slots = [_Slot(number) for number in range(n_processes)]
        self._stop_deadline_s = stop_deadline_s
        # Never written to: it becomes readable (end of file) when this process ends.
        self._parent_alive, self._parent_alive_writer = os.pipe()

    def run(self) -> int:
        """Keep the processes running until SIGTERM or SIGINT.

        Returns
        -------
        int
            0 if stopped by a signal, `CANNOT_START` if no process could start.
        """
        signals = open_signals((*STOP_SIGNALS, signal.SIGCHLD))
        while True:
            self._start_due()
            select.select([signals], [], [], self._until_next_start())
            if any(number in STOP_SIGNALS for number in _read_signals(signals)):
                self._stop()
                return 0
            if self._reap():
                self._stop()
                return CANNOT_START

    def _start_due(self) -> None:
        for slot in self._slots:
            if not slot.pid and time.monotonic() >= slot.start_at:
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        slot.started_at = time.monotonic()
        slot.starts += 1
        pid = os.fork()
        if pid:
            slot.pid = pid
            return
        code = CANNOT_START
        try:
            signal.set_wakeup_fd(-1)  # inherited: signals to the child would wake the parent
            os.close(self._parent_alive_writer)
            code = self._serve(slot.number, self._parent_alive)
        except BaseException:  # the child must not return into the parent's code
            logger.exception("process-failed slot=%d", slot.number)
        finally:
            logging.shutdown()
            os._exit(code)

    def _until_next_start(self) -> float | None:
        waits = [slot.start_at - time.monotonic() for slot in self._slots if not slot.pid]
        return max(0.0, min(waits)) if waits else None

    def _reap(self) -> bool:
        """Collect ended processes; return whether one of them could not start the first time."""
        for slot in self._slots:
            if not slot.pid:
                continue
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if not pid:
                continue
            slot.pid = 0
            code = os.waitstatus_to_exitcode(status)
            if code == CANNOT_START and slot.starts == 1:
                return True
            lived_s = time.monotonic() - slot.started_at
            slot.failures = 0 if lived_s >= _STEADY_S else slot.failures + 1
            if slot.failures > 1:  # the first may be an accident
                wait_s = min(_FIRST_WAIT_S * 2**slot.failures, _LONGEST_WAIT_S)
                slot.start_at = time.monotonic() + wait_s
            logger.error(
                "process-ended slot=%d exit_code=%d lived_s=%.1f: its open associations are lost, "
                "their senders repeat them; it is replaced",
                *(slot.number, code, lived_s),
            )
        return False

    def _stop(self) -> None:
        for slot in self._slots:
            if slot.pid:
                os.kill(slot.pid, signal.SIGTERM)
        end = time.monotonic() + self._stop_deadline_s
        for slot in self._slots:
            while slot.pid:
                if os.waitpid(slot.pid, os.WNOHANG)[0]:
                    slot.pid = 0
                elif time.monotonic() > end:
                    logger.error("process-killed slot=%d: it did not end in time", slot.number)
                    os.kill(slot.pid, signal.SIGKILL)
                    os.waitpid(slot.pid, 0)
                    slot.pid = 0
                else:
                    time.sleep(0.02)


def open_signals(numbers: tuple[signal.Signals, ...]) -> int:
    """Return a file descriptor from which each signal can be read as a byte, its number.

    An Event set by a handler would not do: Python runs handlers in the main thread, and a signal
    that the kernel delivers to another thread does not wake the main thread.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return read_end


def wait_for_stop(signals: int, parent_alive: int | None = None) -> None:
    """Wait for a signal, or for the parent to end."""
    select.select([signals] if parent_alive is None else [signals, parent_alive], [], [])


def _read_signals(signals: int) -> bytes:
    ready, _, _ = select.select([signals], [], [], 0)
    return os.read(signals, 256) if ready else b""
