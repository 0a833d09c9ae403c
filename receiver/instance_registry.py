"""Receiving: the one thread that writes study rows and audit rows, many instances a transaction.

A durable commit costs about as much for one row as for fifty. While one transaction is on its way
to the disk, the instances of all associations gather and go into the next one (group commit), so
nothing has to wait for company and a lone sender pays for a lone commit.
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
from db.receiving.intake import Intake, add_to_open_revisions, record_instances
from db.session import transaction, unit_of_work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from core.studies import ReceivedInstance

logger = logging.getLogger(__name__)

_MAX_BATCH: Final = 256
_MAX_NOTES_WAITING: Final = 1000


@dataclass(frozen=True, slots=True)
class _Row:
    instance: ReceivedInstance
    answer: Future[Intake] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Note:
    event: str
    study_uid: str | None
    detail: dict[str, Any]


class InstanceRegistry:
    """Writes rows for every association.

    Parameters
    ----------
    engine : Engine
    timeout_s : float
        How long an association waits for its commit before it counts the database as down.
    """

    def __init__(self, engine: Engine, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._entries: queue.SimpleQueue[_Row | _Note | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="instance-registry", daemon=True)
        self._thread.start()

    def record(self, instance: ReceivedInstance) -> Intake:
        """Return once the row of `instance` is committed.

        Raises
        ------
        Unavailable
            The database is down or does not answer in time. A commit that was late all the same
            does no harm: sent again, the instance is a duplicate.
        """
        row = _Row(instance)
        self._entries.put(row)
        try:
            return row.answer.result(self._timeout_s)
        except FutureTimeout:
            raise Unavailable(
                "database", f"No commit within {self._timeout_s:g} s.", "Check the database."
            ) from None

    def append_event(self, event: str, *, study_uid: str | None = None, **detail: Any) -> None:
        """Write an audit row soon, without waiting: a refusal must not wait for a database.

        While the database is down such a note is only logged.
        """
        logger.warning("%s %s", event, " ".join(f"{key}={detail[key]}" for key in detail))
        if self._entries.qsize() < _MAX_NOTES_WAITING:
            self._entries.put(_Note(event, study_uid, detail))
        else:
            logger.error("audit-row-dropped event=%s waiting=%d", event, _MAX_NOTES_WAITING)

    def close(self) -> None:
        """Write what is waiting, then stop."""
        self._entries.put(None)
        self._thread.join(self._timeout_s)

    def _run(self) -> None:
        while (entry := self._entries.get()) is not None:
            batch = [entry]
            while len(batch) < _MAX_BATCH and not self._entries.empty():
                waiting = self._entries.get()  # this thread alone takes entries out
                if waiting is None:
                    self._write(batch)
                    return
                batch.append(waiting)
            self._write(batch)

    def _write(self, batch: Sequence[_Row | _Note]) -> None:
        """Write entries, and tell those who wait for them."""
        rest = batch
        try:
            rest = self._add(batch)
            if rest:
                self._record(rest)
        except Unavailable as error:
            self._fail(rest, error)
        except Exception as error:  # noqa: BLE001 - one bad entry must not end this thread
            if len(rest) == 1:
                self._fail(rest, error)
            else:  # ... nor take the entries of other associations down with it
                for entry in rest:
                    self._write([entry])

    def _add(self, batch: Sequence[_Row | _Note]) -> Sequence[_Row | _Note]:
        """Write what is plainly new, which is nearly everything, and return the rest."""
        rows = [entry for entry in batch if isinstance(entry, _Row)]
        if not rows:
            return batch
        with transaction(self._engine) as connection:
            added = add_to_open_revisions(connection, [row.instance for row in rows])
        for n in added:
            rows[n].answer.set_result(Intake.STORED)
        return [e for e in batch if not (isinstance(e, _Row) and e.answer.done())]

    def _record(self, batch: Sequence[_Row | _Note]) -> None:
        rows = [entry for entry in batch if isinstance(entry, _Row)]
        with unit_of_work(self._engine) as session:
            # Notes last: the audit chain is locked from the first append to the commit.
            intakes = record_instances(session, [row.instance for row in rows])
            for entry in batch:
                if isinstance(entry, _Note):
                    append(session, entry.event, study_uid=entry.study_uid, detail=entry.detail)
        for row, intake in zip(rows, intakes, strict=True):
            row.answer.set_result(intake)

    def _fail(self, batch: Sequence[_Row | _Note], error: Exception) -> None:
        for entry in batch:
            if isinstance(entry, _Row):
                entry.answer.set_exception(error)
            else:
                logger.error("audit-row-lost event=%s cause=%s", entry.event, describe(error))
