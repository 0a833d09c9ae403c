"""Refusals, counted beside the audit trail: whoever is refused cannot add rows without limit.

A row counts the refusals of one event, reason, calling AE title and address. Titles and addresses
can be made up, so there are at most `MAX_ROWS` rows, and `MAX_AE_TITLES` for one address: what does
not fit is counted in a row that says `VARIOUS` in their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import func, select

from db.models import RefusalCount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

MAX_ROWS: Final = 500
"""Rows that name an address; beyond them, the row that was counted longest ago is given up."""
MAX_AE_TITLES: Final = 8
"""Calling AE titles of one event, reason and address."""
VARIOUS: Final = "*"

_LOCK: Final = 0x65707675  # key of the advisory lock that serialises the writers


class Kind(NamedTuple):
    """What is counted together."""

    event: str
    reason: str
    calling_ae: str
    """Empty if it is not known."""
    peer_address: str

    @property
    def of_anyone(self) -> Kind:
        """The same event and reason, whoever the caller is."""
        return Kind(self.event, self.reason, VARIOUS, VARIOUS)


@dataclass(slots=True)
class Tally:
    """How often, and when."""

    times: int
    first_at: datetime
    last_at: datetime

    @classmethod
    def once(cls) -> Tally:
        """One refusal, now."""
        now = datetime.now(UTC)
        return cls(1, now, now)

    def add(self, other: Tally) -> None:
        """Add what `other` has counted."""
        self.times += other.times
        self.first_at = min(self.first_at, other.first_at)
        self.last_at = max(self.last_at, other.last_at)


def count(session: Session, tallies: Mapping[Kind, Tally]) -> None:
    """Add to the counts, in the caller's transaction; other writers wait until it ends."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    # On SQLite the transaction has held the only write lock since its BEGIN IMMEDIATE.
    rows = {_kind_of(row): row for row in session.scalars(select(RefusalCount))}
    for kind, tally in tallies.items():
        _add(session, rows, _limited(kind, rows), tally)
    named = [kind for kind in rows if kind != kind.of_anyone]
    named.sort(key=lambda kind: rows[kind].last_at)
    for kind in named[: max(0, len(named) - MAX_ROWS)]:
        row = rows.pop(kind)
        session.delete(row)
        _add(session, rows, kind.of_anyone, _tally_of(row))


def _add(session: Session, rows: dict[Kind, RefusalCount], kind: Kind, tally: Tally) -> None:
    row = rows.get(kind)
    if row is None:
        row = rows[kind] = RefusalCount(
            **kind._asdict(), times=tally.times, first_at=tally.first_at, last_at=tally.last_at
        )
        session.add(row)
        return
    total = _tally_of(row)
    total.add(tally)
    row.times, row.first_at, row.last_at = total.times, total.first_at, total.last_at


def _limited(kind: Kind, rows: Mapping[Kind, RefusalCount]) -> Kind:
    """Return `kind`, or that of all AE titles of its address if there are many already."""
    if kind in rows:
        return kind
    of_address = [k for k in rows if k._replace(calling_ae=kind.calling_ae) == kind]
    return kind if len(of_address) < MAX_AE_TITLES else kind._replace(calling_ae=VARIOUS)


def _kind_of(row: RefusalCount) -> Kind:
    return Kind(row.event, row.reason, row.calling_ae, row.peer_address)


def _tally_of(row: RefusalCount) -> Tally:
    return Tally(row.times, row.first_at, row.last_at)
