"""The outcome of checking one invariant."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_EXAMPLES: Final = 5


class Invariant(StrEnum):
    """What must hold at any time, also beside running workers."""

    STORED_FILES = "stored files"
    """Every row that names a file has it, with the size stored and the SHA-256 stored."""
    ORPHAN_FILES = "orphan files"
    """Every file in spool and reports has a row."""
    TEMPORARY_FILES = "temporary files"
    """No file is half written, except by a process that is writing it."""
    OUTCOMES = "outcomes"
    """A revision has one outcome, and the grade, report and deliveries that belong to it."""
    REPORT_CONTENT = "report content"
    """An object has one content under one SOP Instance UID, for every destination."""
    LEASES = "leases"
    """No lease has been expired for long."""
    WAITING = "waiting"
    """What waits does so for a reason that is in SQL, and is taken up in time."""
    OUTBOX = "outbox"
    """Exactly what waits for a worker is notified of, in time."""
    AUDIT = "audit trail"
    """The hash chain is unbroken."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an invariant holds.

    Attributes
    ----------
    invariant : Invariant
    checked : int
        Number of rows or files that were looked at.
    violations : int
        Number of those for which it does not hold.
    examples : tuple of str
        The first violations in words; ids, UIDs and codes, never patient data.
    note : str
        What else the operator should know, e.g. how many files were read.
    """

    invariant: Invariant
    checked: int
    violations: int
    examples: tuple[str, ...] = ()
    note: str = ""

    @classmethod
    def of(
        cls, invariant: Invariant, checked: int, violations: Iterable[str], note: str = ""
    ) -> Self:
        """Count the violations and keep the first as examples."""
        found = list(violations)
        return cls(invariant, checked, len(found), tuple(found[:_MAX_EXAMPLES]), note)

    @property
    def holds(self) -> bool:
        """Whether no violation was found."""
        return not self.violations
