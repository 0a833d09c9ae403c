"""Report files that no row names: of attempts that were killed, or whose claim was stale.

Report files are written before the result is stored, so an attempt that ends in between leaves them
behind; its repetition writes others, because a report states when it was made. Files of the spool
are never removed here: after the restore of a backup they may be all that is left of an instance.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from sqlalchemy import select

from db.models import ReportObjectRow
from db.session import unit_of_work

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


def remove_leftovers(engine: Engine, reports_dir: Path, *, older_than_s: float) -> int:
    """Remove report files without a row, complete or half written; return how many.

    Parameters
    ----------
    engine : Engine
    reports_dir : Path
    older_than_s : float
        Younger files may be of an attempt in progress.

    Raises
    ------
    Unavailable
        The database does not respond; nothing was removed.
    """
    before = time.time() - older_than_s
    if not reports_dir.is_dir():
        return 0
    with os.scandir(reports_dir) as entries:
        old = {entry.name for entry in entries if _is_old(entry, before)}
    if not old:
        return 0
    with unit_of_work(engine, read_only=True) as session:  # after the folder: rows come later
        rows = session.execute(select(ReportObjectRow.sha256).execution_options(yield_per=1000))
        for (sha256,) in rows:
            old.discard(f"{sha256}.dcm")
    for name in old:
        (reports_dir / name).unlink(missing_ok=True)
    return len(old)


def _is_old(entry: os.DirEntry[str], before: float) -> bool:
    try:
        return entry.name.endswith((".dcm", ".part")) and entry.stat().st_mtime < before
    except FileNotFoundError:  # renamed meanwhile
        return False
