"""While a study is being graded or sent: keeps its lease from running out."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, Self

from core.errors import Unavailable
from db.session import unit_of_work

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


class Extend(Protocol):
    """Extends one claim for `lease_s` seconds from `now`; False when it is stale."""

    def __call__(self, session: Session, *, now: datetime, lease_s: float) -> bool: ...  # noqa: D102


class Heartbeat:
    """Extends a claim every third of its lease, from a thread, until the block ends.

    The lease tells a living process from a dead one, not quick work from slow: it can be short, and
    what a killed process left behind is taken up again soon.

    Parameters
    ----------
    engine : Engine
    extend : Extend
    lease_s : float
    """

    def __init__(self, engine: Engine, extend: Extend, lease_s: float) -> None:
        self._engine = engine
        self._extend = extend
        self._lease_s = lease_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._lease_s / 3):
            try:
                with unit_of_work(self._engine) as session:
                    held = self._extend(session, now=datetime.now(UTC), lease_s=self._lease_s)
            except Unavailable:
                continue  # the main thread will meet the same outage, and says so
            if not held:  # what this process still does has no effect
                return
