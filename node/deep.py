"""``epvs-node doctor --deep``: whether rows, files, audit trail and processes agree.

Read-only, and safe beside running workers. `db.consistency` has the rules; this module says what an
operator does when one does not hold.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from core.errors import EpvsError
from db.consistency.files import check_files
from db.consistency.records import check_records
from db.consistency.verdict import Invariant, Verdict
from db.session import create_engine
from node.check import Check
from node.embedded import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.settings import Settings

READ_FILES: Final = 1000
"""Files that are read to compare their SHA-256, unless all are."""
IN_FLIGHT_S: Final = 3600.0
"""Files written within this time may belong to a transfer or an attempt in progress."""
ZOMBIE_S: Final = 2.0
OVERDUE_S: Final = 300.0
"""What should have happened is a fault after this time. Work moves within 60 s after any service
has returned."""

_RESTORE: Final = (
    "Check the disk. Restore the files from a backup, or let the PACS send the study again; "
    "epvs-node show STUDY_UID lists what is affected."
)
_DEFECT: Final = (
    "No use of the node leads here: somebody changed the database, or the node has a defect. "
    "Compare with a backup, and report it."
)
_WORKERS: Final = (
    "Look at the log of the housekeeper, and whether workers run: epvs-node doctor. What waits is "
    "taken up by itself as soon as they do."
)
_REMEDIES: Final = {
    Invariant.STORED_FILES: _RESTORE,
    Invariant.ORPHAN_FILES: "An interrupted transfer or attempt left them. The housekeeper removes "
    "those in reports within two days. Those in spool were never acknowledged, unless the database "
    "was restored from a backup: then let the PACS send again. After that they may be deleted.",
    Invariant.TEMPORARY_FILES: "A process was killed while it wrote them; nothing is lost. The "
    "housekeeper removes those in reports within two days, a receiver that starts those in spool.",
    Invariant.OUTCOMES: _DEFECT,
    Invariant.REPORT_CONTENT: _DEFECT,
    Invariant.LEASES: _WORKERS,
    Invariant.WAITING: _WORKERS,
    Invariant.OUTBOX: _WORKERS,
    Invariant.AUDIT: "Run epvs-node audit verify, and compare with the signed checkpoints.",
}
_HARMLESS: Final = (Invariant.ORPHAN_FILES, Invariant.TEMPORARY_FILES)
"""They cost disk space only."""


def examine(
    settings: Settings,
    *,
    read_all: bool = False,
    in_flight_s: float = IN_FLIGHT_S,
    overdue_s: float = OVERDUE_S,
) -> Iterator[Check]:
    """Check every invariant; with `read_all` every stored file is read.

    Parameters
    ----------
    settings : Settings
    read_all : bool
        Whether the SHA-256 of every file is compared, not only of `READ_FILES`.
    in_flight_s, overdue_s : float
        See `IN_FLIGHT_S` and `OVERDUE_S`.
    """
    engine = create_engine(settings.database_url)
    hashed = None if read_all else READ_FILES
    try:
        for verdict in check_records(engine, settings, overdue_s=overdue_s):
            yield _as_check(verdict)
        for verdict in check_files(engine, settings, in_flight_s=in_flight_s, hashed=hashed):
            yield _as_check(verdict)
    except EpvsError as error:
        yield Check("database", False, error.message, error.remedy)
    finally:
        engine.dispose()
    yield from _zombies(settings)


def _as_check(verdict: Verdict) -> Check:
    detail = f"{verdict.checked} checked"
    if verdict.note:
        detail += f", {verdict.note}"
    if not verdict.holds:
        detail += f"; {verdict.violations} wrong: {'; '.join(verdict.examples)}"
        if verdict.violations > len(verdict.examples):
            detail += "; …"
    is_harmless = verdict.invariant in _HARMLESS
    return Check(
        verdict.invariant,
        verdict.holds or is_harmless,
        detail,
        _REMEDIES[verdict.invariant],
        warning=is_harmless and not verdict.holds,
    )


def list_zombies(settings: Settings) -> list[int]:
    """Return the processes of the embedded stack that ended, and that nobody waits for.

    For a moment every process is one; only those are returned that stay so for `ZOMBIE_S`.
    """

    def look() -> set[int]:
        found = running.list_processes(settings)
        return {pid for pid, state in found.items() if state == "Z"}

    zombies = look()
    if zombies:
        time.sleep(ZOMBIE_S)
        zombies &= look()
    return sorted(zombies)


def _zombies(settings: Settings) -> Iterator[Check]:
    """Check the processes of an embedded stack that runs here."""
    found = running.list_processes(settings)
    if not found:
        return
    zombies = [str(pid) for pid in list_zombies(settings)]
    detail = f"{len(found)} of the embedded stack, {len(zombies)} ended and not waited for"
    if zombies:
        detail += f": {', '.join(zombies)}"
    yield Check("processes", not zombies, detail, "Restart epvs-node up, and report it.")
