"""While a study is being graded: keeps its lease from running out."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from core.errors import Unavailable
from db import leases
from db.session import unit_of_work

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy import Engine

    from db.leases import Claim

log = logging.getLogger(__name__)


class Heartbeat:
    """Extends a claim every third of its lease, from a thread, until the block ends.

    The lease tells a living process from a dead one, not a quick study from a slow one: it can be
    short, and a study whose process was killed is taken up again soon.
    """

    def __init__(self, engine: Engine, claim: Claim, lease_s: float) -> None:
        self._engine = engine
        self._claim = claim
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
                    held = leases.extend(
                        session, self._claim, now=datetime.now(UTC), lease_s=self._lease_s
                    )
            except Unavailable:
                continue  # the main thread will meet the same outage, and says so
            if not held:  # what this process still does has no effect
                log.warning("claim lost revision=%s", self._claim.revision_id)
                return
