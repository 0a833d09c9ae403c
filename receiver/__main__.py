"""Receiving: ``python -m receiver`` runs the Storage SCP until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import signal
import sys
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

    stop_requests = _open_stop_requests()
    receiver = Receiver(settings, create_engine(settings.database_url))
    try:
        receiver.start()
    except OSError as error:
        logger.exception("cannot-start errno=%s", error.errno)
        return 1
    os.read(stop_requests, 1)
    receiver.stop(DRAIN_DEADLINE_S)
    return 0


def _open_stop_requests() -> int:
    """File descriptor from which a byte can be read once SIGTERM or SIGINT has come.

    An Event that the handler sets would not do: Python runs handlers in the main thread, and a
    signal that the kernel gives to another thread does not wake the main thread from its wait.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return read_end


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Not sys.exit: pynetdicom's threads for connections that never associated are no daemons and
    # would hold the process until their timeouts. Everything that counts is durable by now.
    os._exit(code)
