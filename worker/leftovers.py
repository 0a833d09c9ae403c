"""Removes, once a day, what attempts that were killed left among the report files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from core.errors import Unavailable
from db.grading.leftovers import remove_leftovers

if TYPE_CHECKING:
    import threading

    from sqlalchemy import Engine

    from core.settings import Settings

OLDER_THAN_S: Final = 86_400.0
"""Far more than an attempt takes, or than clocks of hosts may differ."""
_EVERY_S: Final = 86_400.0
_RETRY_S: Final = 60.0

log = logging.getLogger(__name__)


class Leftovers:
    """The duty; two housekeepers may have it at once.

    Parameters
    ----------
    settings : Settings
    engine : Engine
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings, self._engine = settings, engine

    def run(self, stop: threading.Event) -> None:
        """Remove leftovers at once and then every day, until `stop` is set."""
        wait_s = 0.0
        while not stop.wait(wait_s):
            wait_s = _EVERY_S if self.remove() else _RETRY_S

    def remove(self) -> bool:
        """Remove leftovers; False if that has to be tried again."""
        try:
            removed = remove_leftovers(
                self._engine, self._settings.reports_dir, older_than_s=OLDER_THAN_S
            )
        except Unavailable:
            return False  # the other duties log it
        except OSError as error:
            log.warning("report files without a row cannot be removed: %s", error.strerror)
            return True
        if removed:
            log.info("removed report files without a row files=%d", removed)
        return True
