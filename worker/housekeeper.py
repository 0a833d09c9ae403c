"""The housekeeper: closes quiet studies, requeues expired leases, notifies the workers.

It also removes what retention says is due and what killed attempts left behind, and sends signed
checkpoints of the audit trail, where they are configured.

``python -m worker.housekeeper`` runs until SIGTERM or SIGINT. Its whole state is in SQL, so it can
be killed and restarted at any time, and two instances do not interfere.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from core.errors import ConfigurationError, Unavailable
from core.logs import configure_logging
from core.permissions import keep_files_private
from core.settings import Settings, load_settings
from db import outbox
from db.clock import current_time
from db.delivery import claims
from db.grading import leases
from db.receiving import closing
from db.session import create_engine, unit_of_work
from worker.audit_checkpoints import Checkpoints
from worker.notifier import notify
from worker.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

log = logging.getLogger(__name__)

_LAST_CHECKPOINT_S: Final = 8.0
"""How long the end waits for the last checkpoint of the audit trail to be sent. Docker kills a
container that has not ended after 10 s."""


class Housekeeper:
    """Runs the periodic duties, once every `sweep_interval_s`.

    Parameters
    ----------
    settings : Settings
    engine : Engine
    repeat_after_s : float
        A notification whose target still waits is repeated after this time.
    """

    def __init__(
        self, settings: Settings, engine: Engine, *, repeat_after_s: float = outbox.REPEAT_AFTER_S
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._repeat_after_s = repeat_after_s
        self._unavailable: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Sweep until `stop` is set, also while the database or the broker is unavailable."""
        while not stop.wait(self._settings.sweep_interval_s):
            self.sweep()

    def sweep(self) -> None:
        """Run every duty once; without the database there is nothing to notify of."""
        if self._attempt("database", self._close_and_requeue):
            self._attempt("broker", self._notify)

    def _attempt(self, service: str, duty: Callable[[], None]) -> bool:
        """Run one duty; log once that a service is unavailable, and once that it responds again."""
        try:
            duty()
        except Unavailable as error:
            if error.service not in self._unavailable:
                self._unavailable.add(error.service)
                log.warning("waiting for the %s: %s", error.service, error)
            return False
        if service in self._unavailable:
            self._unavailable.discard(service)
            log.info("the %s responds again", service)
        return True

    def _close_and_requeue(self) -> None:
        settings = self._settings
        with unit_of_work(self._engine) as session:
            closed = closing.close_quiet_studies(
                session,
                now=current_time(session),
                quiet_period_s=settings.quiet_period_s,
                max_open_s=settings.max_open_s,
            )
        with unit_of_work(self._engine) as session:
            requeued = leases.sweep(
                session, now=current_time(session), max_attempts=settings.max_attempts
            )
        with unit_of_work(self._engine) as session:
            postponed = claims.sweep(session, now=current_time(session))
        for revision_id in closed:
            log.info("closed revision=%s", revision_id)
        for revision_id in requeued:
            log.warning("lease expired revision=%s", revision_id)
        for delivery_id in postponed:
            log.warning("lease expired delivery=%s", delivery_id)

    def _notify(self) -> None:
        """Publish the notifications that are due, and record those that were published."""
        with unit_of_work(self._engine, read_only=True) as session:
            now = current_time(session)
            items = outbox.due(session, now=now)
        notified = notify(items, self._settings.broker_url)
        if notified:
            with unit_of_work(self._engine) as session:
                outbox.mark_notified(
                    session, notified, now=now, repeat_after_s=self._repeat_after_s
                )


def _report_ready(settings: Settings) -> None:
    """Create the file for which `epvs-node up` waits; elsewhere there may be no data folder."""
    with contextlib.suppress(OSError):
        settings.housekeeper_ready_file.touch()


def main() -> None:
    """Run the housekeeper until the process receives SIGTERM or SIGINT."""
    keep_files_private()
    settings = load_settings()
    configure_logging(settings, "housekeeper")
    stop = threading.Event()

    def end(_signal: int, _frame: Any) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    engine = create_engine(settings.database_url)
    checkpoints = threading.Thread(
        target=Checkpoints(settings, engine).run, args=(stop,), name="checkpoints", daemon=True
    )
    if settings.audit_key:
        checkpoints.start()
    # A thread of its own: removing files must not delay the other duties.
    threading.Thread(
        target=Retention(settings, engine).run, args=(stop,), name="retention", daemon=True
    ).start()
    housekeeper = Housekeeper(settings, engine)
    housekeeper.sweep()
    _report_ready(settings)
    log.info("sweeping every %.1f s", settings.sweep_interval_s)
    housekeeper.run(stop)
    if settings.audit_key:
        checkpoints.join(_LAST_CHECKPOINT_S)
    log.info("ended")


if __name__ == "__main__":
    try:
        main()
    except ConfigurationError as problem:
        sys.exit(f"The housekeeper cannot start: {problem}")
