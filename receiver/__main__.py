"""``python -m receiver`` runs the Storage SCP until SIGTERM or SIGINT."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from core.errors import ConfigurationError
from core.logs import configure_logging
from core.permissions import keep_files_private
from core.settings import load_settings
from db.session import create_engine
from receiver.listener import require_free
from receiver.service import Receiver
from receiver.supervisor import (
    CANNOT_START,
    STOP_SIGNALS,
    Occupancy,
    Supervisor,
    open_signals,
    wait_for_stop,
)

if TYPE_CHECKING:
    from core.settings import Settings

DRAIN_DEADLINE_S: Final = 8.0
"""Time for open associations to finish when stopping. Docker kills after 10 s, and an association
that is aborted costs its sender no more than a resend."""

_M_ARENA_MAX: Final = -8
"""From glibc's malloc.h."""

logger = logging.getLogger("receiver")


def main() -> int:
    """Run the receiver.

    Returns
    -------
    int
        0 if stopped by a signal, 1 if it could not start, 2 if the settings are wrong.
    """
    keep_files_private()
    try:
        settings = load_settings()
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - without settings there is no log
        return 2
    configure_logging(settings, "receiver")
    _share_arenas()
    n_processes = settings.receiver_processes
    run = partial(_run_process, settings, Occupancy(n_processes, settings.max_associations))
    if n_processes == 1:
        return run(0, None)
    try:
        for port in filter(None, (settings.port, settings.tls_port)):
            require_free(settings.host, port)
    except OSError as error:
        logger.exception("cannot-start errno=%s", error.errno)
        return CANNOT_START
    return Supervisor(run, n_processes, DRAIN_DEADLINE_S + 1.0).run()


def _share_arenas() -> None:
    """Let all threads share two of glibc's memory arenas, if the C library is glibc.

    Otherwise many associations get an arena each, which keeps memory that they have freed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def _run_process(
    settings: Settings, occupancy: Occupancy, slot: int, parent_alive: int | None
) -> int:
    """Receive until a signal arrives or the parent ends; return the exit code."""
    signals = open_signals(STOP_SIGNALS)
    receiver = Receiver(settings, create_engine(settings.database_url), occupancy, slot)
    try:
        receiver.start()
    except OSError as error:
        logger.exception("cannot-start errno=%s", error.errno)
        return CANNOT_START
    except ConfigurationError as error:
        logger.error("cannot-start %s", error)  # noqa: TRY400 - the message is enough
        return CANNOT_START
    # Everything loaded by now stays, so that the garbage collector need not look at it again.
    gc.freeze()
    wait_for_stop(signals, parent_alive)
    receiver.stop(DRAIN_DEADLINE_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
