"""Receiving: ``python -m receiver`` runs the Storage SCP until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import Final

from core.errors import ConfigurationError
from core.logs import configure_logging
from core.settings import load_settings
from db.session import create_engine
from receiver.service import Receiver

DRAIN_DEADLINE_S: Final = 8.0
"""Docker kills after 10 s; an association cut short costs its sender no more than a resend."""

logger = logging.getLogger("receiver")


def main() -> int:
    """Run the receiver.

    Returns
    -------
    int
        0 stopped by a signal, 1 it could not start, 2 the settings are wrong.
    """
    try:
        settings = load_settings()
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - there are no settings to log by
        return 2
    configure_logging(settings, "receiver")
    os.umask(0o027)  # the spool holds patients' images

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    receiver = Receiver(settings, create_engine(settings.database_url))
    try:
        receiver.start()
    except OSError as error:
        logger.exception("cannot-start errno=%s", error.errno)
        return 1
    stop.wait()
    receiver.stop(DRAIN_DEADLINE_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
