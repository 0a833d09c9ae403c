"""Refusals, which anyone who reaches the port can cause in any number.

Each is counted in the database beside the audit trail, which nothing can be deleted from; only the
first of a kind becomes an audit event. Both are written by a thread of their own, a few times a
second at most: a refusal waits for nothing, and a flood of them makes few transactions.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from core.callers import source_of
from core.errors import Unavailable
from core.logs import describe
from core.text import printable
from db import audit
from db.refusals import Kind, Tally, count
from db.session import unit_of_work

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 3600.0
"""Within this time, refusals of one kind are one audit event."""
MAX_EVENTS: Final = 30
"""Audit events of one name within that time, in all processes of the receiver."""
_MAX_KINDS: Final = 256
"""Kinds that are counted between two writes; others are counted without their caller."""
_BETWEEN_WRITES_S: Final = 0.25
_AFTER_FAILURE_S: Final = 5.0
_LONGEST_CLOSE_S: Final = 5.0


class Refusals:
    """Counts refusals, and appends the first of each kind to the audit trail.

    While the database is down they gather in a limited amount of memory, and are written later.

    Parameters
    ----------
    engine : Engine
    n_processes : int, optional
        Processes of the receiver, which share `MAX_EVENTS`.
    clock : callable, optional
        Seconds that never go back.
    """

    def __init__(
        self, engine: Engine, n_processes: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._max_events = max(1, MAX_EVENTS // n_processes)
        self._clock = clock
        self._tallies: dict[Kind, Tally] = {}
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._audited: set[Kind] = set()
        """Kinds that have had their audit event since `_interval_began`."""
        self._interval_began = clock()
        self._lock = threading.Lock()
        self._something_new = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refusals", daemon=True)
        self._thread.start()

    def count(
        self, event: str, *, reason: str, peer_address: str, calling_ae: str = "", **detail: Any
    ) -> None:
        """Count a refusal; it is written soon.

        Parameters
        ----------
        event : str
            Name of the audit event.
        reason : str
            Code, or a sentence with no value that the peer sent.
        peer_address : str
            Numeric.
        calling_ae : str, optional
        **detail
            For the audit event: UIDs, codes, numbers and printable text; never patient data.
        """
        calling_ae = printable(calling_ae)  # PostgreSQL stores no NUL character
        kind = Kind(event, reason, calling_ae, source_of(peer_address))
        parties = {"calling_ae": calling_ae} if calling_ae else {}
        detail = {"reason": reason, **parties, "peer_address": peer_address, **detail}
        with self._lock:
            self._tally(kind, Tally.once())
            is_first = self._is_first(kind)
            if is_first:
                self._events.append((event, detail))
        logger.log(
            logging.WARNING if is_first else logging.DEBUG,
            "%s %s",
            event,
            " ".join(f"{key}={value}" for key, value in detail.items()),
        )
        self._something_new.set()

    def close(self) -> None:
        """Write what was counted, then stop."""
        self._closing.set()
        self._something_new.set()
        self._thread.join(_LONGEST_CLOSE_S)

    def _tally(self, kind: Kind, tally: Tally) -> None:
        if kind not in self._tallies and len(self._tallies) >= _MAX_KINDS:
            kind = kind.of_anyone
        self._tallies.setdefault(kind, tally)
        if self._tallies[kind] is not tally:
            self._tallies[kind].add(tally)

    def _is_first(self, kind: Kind) -> bool:
        """Whether the kind has had no audit event in this interval, and may have one."""
        now = self._clock()
        if now - self._interval_began >= INTERVAL_S:
            self._interval_began = now
            self._audited.clear()
        n_events = sum(each.event == kind.event for each in self._audited)
        if kind in self._audited or n_events >= self._max_events:
            return False
        self._audited.add(kind)
        return True

    def _run(self) -> None:
        while not self._closing.is_set():
            self._something_new.wait()
            self._something_new.clear()
            is_written = self._write()
            if not is_written:
                self._something_new.set()
            self._closing.wait(_BETWEEN_WRITES_S if is_written else _AFTER_FAILURE_S)
        if not self._write():
            logger.error("refusals-lost kinds=%d", len(self._tallies))

    def _write(self) -> bool:
        """Write what has gathered; return False, and keep it, if the database cannot take it."""
        with self._lock:
            tallies, self._tallies = self._tallies, {}
            events, self._events = self._events, []
        if not tallies:
            return True
        try:
            with unit_of_work(self._engine) as session:
                count(session, tallies)
                # Last: the audit chain is locked from the first append to the commit.
                for event, detail in events:
                    audit.append(session, event, detail=detail)
        except Unavailable as error:
            logger.warning("refusals-not-written cause=%s", describe(error))
            with self._lock:
                for kind, tally in tallies.items():
                    self._tally(kind, tally)
                self._events = (events + self._events)[:_MAX_KINDS]
            return False
        except Exception:  # no error may end this thread, or return with every write
            logger.exception("refusals-lost kinds=%d", len(tallies))
        return True
