"""The heartbeat: extends the lease of a claim while its attempt is in progress."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol, Self

from core.errors import Unavailable
from db.clock import current_time
from db.session import unit_of_work

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


class Extend(Protocol):
    """Extends one claim to `lease_s` seconds from `now`; False when the claim is stale."""

    def __call__(self, session: Session, *, now: datetime, lease_s: float) -> bool: ...  # noqa: D102


class Heartbeat:
    """Context manager that extends a claim every third of its lease, from a thread.

    The lease only distinguishes a live process from a dead one, so it can be short, and the work of
    a killed process is soon claimed again.

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
                    held = self._extend(session, now=current_time(session), lease_s=self._lease_s)
            except Unavailable:
                continue  # the attempt itself logs the outage
            if not held:  # whatever this process still writes has no effect
                return
