"""Every step: one line of log for each event, in UTC, without patient data.

A line reads ``2026-01-31T09:30:00.123Z INFO receiver receiver.storage: stored revision=…``.
What happened comes first, then ``name=value`` pairs, so that both people and ``grep`` can read it.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
import warnings
from typing import TYPE_CHECKING, Final

from core.errors import EpvsError

if TYPE_CHECKING:
    from types import TracebackType

    from core.settings import Settings

_QUIET_LIBRARIES: Final = ("pydicom", "highdicom")
"""Their warnings quote element values, which may be a patient's."""
_CHATTY_LIBRARIES: Final = ("pynetdicom", "alembic", "sqlalchemy", "celery", "kombu", "redis")
"""Below WARNING they tell of their own inner life, not of the node's."""


class LineFormatter(logging.Formatter):
    """One physical line for each record, UTC, and exceptions without their foreign texts.

    Parameters
    ----------
    room : str
        The process that logs: ``"receiver"``, ``"worker"``, ``"housekeeper"``.
    """

    def __init__(self, room: str) -> None:
        super().__init__(
            fmt=f"%(asctime)s.%(msecs)03dZ %(levelname)s {room} %(name)s: %(message)s",
            datefmt="%Y-%m-%dT%H:%M:%S",
        )
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Render `record` on one line."""
        if isinstance(record.msg, BaseException):  # libraries log exceptions as the message
            record = logging.makeLogRecord(
                {**record.__dict__, "msg": describe(record.msg), "args": ()}
            )
        # A traceback that another handler rendered first would carry the exception's own text.
        record.exc_text = None
        return super().format(record).replace("\r", "").replace("\n", " | ")

    def formatException(  # noqa: N802 - the name is logging's
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        """Say what was raised and where; see `describe`."""
        return describe(ei[1]) if ei[1] is not None else ""


def describe(error: BaseException) -> str:
    """Type and place of an exception, and its text only where the text is known to be ours.

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


def configure_logging(settings: Settings, room: str) -> None:
    """Send the log of this process to standard error, one line an event.

    Parameters
    ----------
    settings : Settings
        `log_level` counts for our own rooms; libraries speak from WARNING up.
    room : str
        Named in every line: ``"receiver"``, ``"worker"``, ``"housekeeper"``.
    """
    # Deferred: the command line logs too, and must not pay for the DICOM network library.
    from pynetdicom import _config as pynetdicom_config

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(room))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _CHATTY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # pydicom says the same things a second time as Python warnings.
    warnings.simplefilter("ignore")
    # Identifiers of C-FIND requests and responses hold patients' names.
    pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
