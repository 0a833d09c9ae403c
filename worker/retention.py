"""Retention as the housekeeper runs it: what is due, what killed attempts left, and long logs."""

from __future__ import annotations

import logging
import os
import shutil
import time
from typing import TYPE_CHECKING, Final

from core.errors import Unavailable
from db.retention.leftovers import remove_leftovers
from db.retention.policy import Policy
from db.retention.pruning import Pruned, prune

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from sqlalchemy import Engine

    from core.settings import Settings

log = logging.getLogger(__name__)

_MB: Final = 2**20
_DAY_S: Final = 86_400.0
"""Leftovers are looked for this often, and are older than this: far more than an attempt takes, or
than clocks of hosts may differ."""


class Retention:
    """Removes what is due, every `prune_interval_s`.

    Parameters
    ----------
    settings : Settings
    engine : Engine
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._leftovers_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Run passes until `stop` is set; nothing that fails ends the housekeeper."""
        while not stop.wait(self._settings.prune_interval_s):
            try:
                self.run_once()
            except Unavailable as error:
                log.warning("nothing removed: %s", error)
            except Exception:
                log.exception("retention-failed")

    def run_once(self) -> Pruned:
        """Run one pass."""
        settings = self._settings
        shorten_logs(settings.logs_dir, settings.keep_logs_mb * _MB)
        pruned = prune(self._engine, Policy.of(settings), is_short_of_space=self._is_short_of_space)
        if pruned.removed.files or pruned.details:
            log.info(
                "removed files=%d mb=%d images_of_studies=%d details=%d",
                *(pruned.removed.files, pruned.removed.size_bytes // _MB),
                *(pruned.studies, pruned.details),
            )
        if pruned.waiting.files:
            log.warning("files-not-removed files=%d", pruned.waiting.files)
        if time.monotonic() >= self._leftovers_at:
            self._remove_leftovers()
            self._leftovers_at = time.monotonic() + _DAY_S
        return pruned

    def _remove_leftovers(self) -> None:
        folder = self._settings.reports_dir
        if n_removed := remove_leftovers(self._engine, folder, older_than_s=_DAY_S):
            log.info("removed report files without a row files=%d", n_removed)

    def _is_short_of_space(self) -> bool:
        try:
            free = shutil.disk_usage(self._settings.spool_dir).free
        except OSError:  # nothing was received yet, or the folder is not mounted
            return False
        return free < self._settings.early_removal_mb * _MB


def shorten_logs(folder: Path, longest_bytes: int) -> None:
    """Copy each log file over this length to ``….1`` and empty it; 0: leave them.

    The processes that write them append to open files, so a file is emptied, not replaced. What is
    written between copying and emptying, some milliseconds, is lost.
    """
    if not longest_bytes or not folder.is_dir():
        return
    for path in sorted(folder.glob("*.log")):
        try:
            if path.stat().st_size > longest_bytes:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)
        except OSError as error:
            log.warning("log file not shortened file=%s errno=%s", path.name, error.errno)
