"""Logging: one line for each event, in UTC, without patient data.

A line reads ``2026-01-31T09:30:00.123Z INFO receiver receiver.storage: stored revision=…``: the
event, then ``name=value`` pairs.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
import warnings
from typing import TYPE_CHECKING, Final

from core.errors import EpvsError
from core.text import printable

if TYPE_CHECKING:
    from types import TracebackType

    from core.settings import Settings

_QUIET_LIBRARIES: Final = ("pydicom", "highdicom")
"""Their warnings quote element values, which may be patient data."""
_CHATTY_LIBRARIES: Final = ("pynetdicom", "alembic", "sqlalchemy", "celery", "kombu", "redis")
"""Below WARNING they log their own internals."""


class LineFormatter(logging.Formatter):
    """Formats each record on one printable line, in UTC, without texts of foreign exceptions.

    Parameters
    ----------
    component : str
        The process that logs: ``"receiver"``, ``"worker"``, ``"housekeeper"``.
    """

    def __init__(self, component: str) -> None:
        super().__init__(
            fmt=f"%(asctime)s.%(msecs)03dZ %(levelname)s {component} %(name)s: %(message)s",
            datefmt="%Y-%m-%dT%H:%M:%S",
        )
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Render `record` on one line, whatever a peer has put into its values."""
        if isinstance(record.msg, BaseException):  # libraries log exceptions as the message
            record = logging.makeLogRecord(
                {**record.__dict__, "msg": describe(record.msg), "args": ()}
            )
        # A traceback that another handler has rendered contains the text of the exception.
        record.exc_text = None
        return printable(super().format(record).replace("\r\n", "\n").replace("\n", " | "))

    def formatException(  # noqa: N802 - the name is logging's
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        """Format the type and place of an exception; see `describe`."""
        return describe(ei[1]) if ei[1] is not None else ""


def describe(error: BaseException) -> str:
    """Type and place of an exception, and its text only if the node itself raised it.

    Texts of foreign exceptions may quote element values (pydicom) or SQL parameters (SQLAlchemy).
    """
    text = (
        f"{type(error).__name__}: {error}"
        if isinstance(error, EpvsError)
        else (type(error).__name__)
    )
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{_short(frame.filename)}:{frame.lineno}" for frame in reversed(frames))
    return f"{text} at {places}" if places else text


def _short(filename: str) -> str:
    return "/".join(filename.split("/")[-2:])


def configure_logging(settings: Settings, component: str) -> None:
    """Send the log of this process to standard error, one line per event.

    Parameters
    ----------
    settings : Settings
        `log_level` applies to the node's own modules; libraries log from WARNING up.
    component : str
        Stated in every line: ``"receiver"``, ``"worker"``, ``"housekeeper"``.
    """
    # Imported here, so that the command line does not load the DICOM network library.
    from pynetdicom import _config as pynetdicom_config

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(component))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _CHATTY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # pydicom issues the same messages as Python warnings, too.
    warnings.simplefilter("ignore")
    # Identifiers of C-FIND requests and responses contain patient names.
    pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
    _log_unexpected_ends(logging.getLogger(component))


def _log_unexpected_ends(logger: logging.Logger) -> None:
    """Log exceptions that end the process or a thread; Python would print their texts."""

    def end_of_process(_: object, error: BaseException, __: object) -> None:
        logger.critical("process-failed", exc_info=error)

    def end_of_thread(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
            logger.critical("thread-failed", exc_info=ended.exc_value)

    sys.excepthook = end_of_process
    threading.excepthook = end_of_thread
