"""Between receiving and grading: closes quiet studies, frees lost leases, rings the doorbell.

``python -m worker.housekeeper`` runs until SIGTERM or SIGINT. Everything it knows is in SQL, so it
can be killed and started at any time, and two of it do no harm.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from core.errors import ConfigurationError, Unavailable
from core.logs import configure_logging
from core.settings import Settings, load_settings
from db import outbox
from db.grading import leases
from db.receiving import closing
from db.session import create_engine, unit_of_work
from worker.notifier import ring

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

log = logging.getLogger(__name__)


class Housekeeper:
    """Looks after what waits, once every `sweep_interval_s`.

    Parameters
    ----------
    settings : Settings
    engine : Engine
    rering_after_s : float
        What was rung and still waits is rung again after this time.
    """

    def __init__(
        self, settings: Settings, engine: Engine, *, rering_after_s: float = outbox.RERING_AFTER_S
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._rering_after_s = rering_after_s
        self._away: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Sweep until `stop` is set, whatever is away meanwhile."""
        while not stop.wait(self._settings.sweep_interval_s):
            self.sweep()

    def sweep(self) -> None:
        """Do every duty once; while the database is away there is nothing to ring for."""
        if self._attempt("database", self._close_and_free):
            self._attempt("broker", self._ring)

    def _attempt(self, service: str, duty: Callable[[], None]) -> bool:
        """Run one duty; say once that a service is away, and once that it is back."""
        try:
            duty()
        except Unavailable as error:
            if error.service not in self._away:
                self._away.add(error.service)
                log.warning("waiting for the %s: %s", error.service, error)
            return False
        if service in self._away:
            self._away.discard(service)
            log.info("the %s answers again", service)
        return True

    def _close_and_free(self) -> None:
        settings, now = self._settings, datetime.now(UTC)
        with unit_of_work(self._engine) as session:
            closed = closing.close_quiet_studies(
                session,
                now=now,
                quiet_period_s=settings.quiet_period_s,
                max_open_s=settings.max_open_s,
            )
        with unit_of_work(self._engine) as session:
            freed = leases.sweep(session, now=now, max_attempts=settings.max_attempts)
        for revision_id in closed:
            log.info("closed revision=%s", revision_id)
        for revision_id in freed:
            log.warning("lease ran out revision=%s", revision_id)

    def _ring(self) -> None:
        """Ring for what is committed; only what was rung is marked so."""
        now = datetime.now(UTC)
        with unit_of_work(self._engine, read_only=True) as session:
            items = outbox.due(session, now=now)
        rung = ring(items, self._settings.broker_url)
        if rung:
            with unit_of_work(self._engine) as session:
                outbox.mark_rung(session, rung, now=now, rering_after_s=self._rering_after_s)


def main() -> None:
    """Keep house until the process is asked to end."""
    settings = load_settings()
    configure_logging(settings, "housekeeper")
    stop = threading.Event()

    def end(_signal: int, _frame: Any) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    log.info("keeping house every %.1f s", settings.sweep_interval_s)
    Housekeeper(settings, create_engine(settings.database_url)).run(stop)
    log.info("ended")


if __name__ == "__main__":
    try:
        main()
    except ConfigurationError as problem:
        sys.exit(f"The housekeeper cannot start: {problem}")
