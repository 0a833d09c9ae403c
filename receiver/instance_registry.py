"""The instance registry: one thread that writes instance rows, in batches.

A durable commit costs about as much for one row as for fifty. While one transaction is being
committed, the rows of all associations gather and form the next batch (group commit). No row
waits for a batch to fill, so a lone sender pays for a lone commit only.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from core.errors import Unavailable
from db.clock import current_time
from db.receiving.intake import Intake, record_instances
from db.session import unit_of_work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from core.studies import ReceivedInstance

_MAX_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class _Row:
    instance: ReceivedInstance
    outcome: Future[Intake] = field(default_factory=Future)


class InstanceRegistry:
    """Writes the instance rows of every association of a process.

    Parameters
    ----------
    engine : Engine
    timeout_s : float
        Longest wait of an association for its commit; after it the database counts as unavailable.
    """

    def __init__(self, engine: Engine, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._rows: queue.SimpleQueue[_Row | None] = queue.SimpleQueue()
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
        self._rows.put(row)
        try:
            return row.outcome.result(self._timeout_s)
        except FutureTimeout:
            raise Unavailable(
                "database", f"No commit within {self._timeout_s:g} s.", "Check the database."
            ) from None

    def close(self) -> None:
        """Write what is queued, then stop."""
        self._rows.put(None)
        self._thread.join(self._timeout_s)

    def _run(self) -> None:
        while (row := self._rows.get()) is not None:
            batch = [row]
            while len(batch) < _MAX_BATCH and not self._rows.empty():
                following = self._rows.get()  # only this thread takes rows out
                if following is None:
                    self._write(batch)
                    return
                batch.append(following)
            self._write(batch)

    def _write(self, batch: Sequence[_Row]) -> None:
        """Write a batch in one transaction, or its rows one by one if one of them fails."""
        try:
            with unit_of_work(self._engine) as session:
                now = current_time(session)
                received = [replace(row.instance, received_at=now) for row in batch]
                outcomes = record_instances(session, received)
        except Unavailable as error:
            self._fail(batch, error)
        except Exception as error:  # noqa: BLE001 - no row may end this thread
            if len(batch) == 1:
                self._fail(batch, error)
            else:
                for row in batch:
                    self._write([row])
        else:
            for row, outcome in zip(batch, outcomes, strict=True):
                row.outcome.set_result(outcome)

    def _fail(self, batch: Sequence[_Row], error: Exception) -> None:
        for row in batch:
            row.outcome.set_exception(error)
