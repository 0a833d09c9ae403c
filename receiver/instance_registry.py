"""The instance registry: one thread that writes instance rows and audit events, in batches.

A durable commit costs about as much for one row as for fifty. While one transaction is being
committed, the entries of all associations gather and form the next batch (group commit). No entry
waits for a batch to fill, so a lone sender pays for a lone commit only.
"""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from core.errors import Unavailable
from core.logs import describe
from db.audit import append
from db.receiving.intake import Intake, record_instances
from db.session import unit_of_work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from core.studies import ReceivedInstance

logger = logging.getLogger(__name__)

_MAX_BATCH: Final = 256
_MAX_QUEUED_EVENTS: Final = 1000


@dataclass(frozen=True, slots=True)
class _Row:
    instance: ReceivedInstance
    outcome: Future[Intake] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Event:
    name: str
    detail: dict[str, Any]


class InstanceRegistry:
    """Writes the rows and audit events of every association of a process.

    Parameters
    ----------
    engine : Engine
    timeout_s : float
        Longest wait of an association for its commit; after it the database counts as unavailable.
    """

    def __init__(self, engine: Engine, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._entries: queue.SimpleQueue[_Row | _Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="instance-registry", daemon=True)
        self._thread.start()

    def record(self, instance: ReceivedInstance) -> Intake:
        """Record an instance and return once its row is committed.

        Raises
        ------
        Unavailable
            The database is down or does not answer in time. If the commit succeeds after that, no
            harm is done: the instance is a duplicate when it is sent again.
        """
        row = _Row(instance)
        self._entries.put(row)
        try:
            return row.outcome.result(self._timeout_s)
        except FutureTimeout:
            raise Unavailable(
                "database", f"No commit within {self._timeout_s:g} s.", "Check the database."
            ) from None

    def append_event(self, event: str, **detail: Any) -> None:
        """Append an audit event soon, without waiting: a refusal must not wait for the database.

        While the database is down, the event is only logged.

        Parameters
        ----------
        event : str
        **detail
            UIDs, codes and numbers; never patient data.
        """
        logger.warning("%s %s", event, " ".join(f"{key}={detail[key]}" for key in detail))
        if self._entries.qsize() < _MAX_QUEUED_EVENTS:
            self._entries.put(_Event(event, detail))
        else:
            logger.error("audit-event-dropped event=%s queued=%d", event, _MAX_QUEUED_EVENTS)

    def close(self) -> None:
        """Write what is queued, then stop."""
        self._entries.put(None)
        self._thread.join(self._timeout_s)

    def _run(self) -> None:
        while (entry := self._entries.get()) is not None:
            batch = [entry]
            while len(batch) < _MAX_BATCH and not self._entries.empty():
                following = self._entries.get()  # only this thread takes entries out
                if following is None:
                    self._write(batch)
                    return
                batch.append(following)
            self._write(batch)

    def _write(self, batch: Sequence[_Row | _Event]) -> None:
        """Write a batch in one transaction, or its entries one by one if one of them fails."""
        rows = [entry for entry in batch if isinstance(entry, _Row)]
        try:
            with unit_of_work(self._engine) as session:
                outcomes = record_instances(session, [row.instance for row in rows])
                # Last: the audit chain is locked from the first append to the commit.
                for entry in batch:
                    if isinstance(entry, _Event):
                        append(session, entry.name, detail=entry.detail)
        except Unavailable as error:
            self._fail(batch, error)
        except Exception as error:  # noqa: BLE001 - no entry may end this thread
            if len(batch) == 1:
                self._fail(batch, error)
            else:
                for entry in batch:
                    self._write([entry])
        else:
            for row, outcome in zip(rows, outcomes, strict=True):
                row.outcome.set_result(outcome)

    def _fail(self, batch: Sequence[_Row | _Event], error: Exception) -> None:
        for entry in batch:
            if isinstance(entry, _Row):
                entry.outcome.set_exception(error)
            else:
                logger.error("audit-event-lost event=%s cause=%s", entry.name, describe(error))
