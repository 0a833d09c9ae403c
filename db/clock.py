"""The node's clock: that of the database, so that the hosts' own clocks need not agree.

Leases, quiet periods and waiting times are compared with each other by whichever host comes next.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from sqlalchemy import func, select

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def current_time(session: Session) -> datetime:
    """Return the current time in UTC, also within a long transaction.

    PostgreSQL is asked; a SQLite file is on the host that asks.
    """
    if session.get_bind().dialect.name != "postgresql":
        return datetime.now(UTC)
    return cast("datetime", session.scalar(select(func.clock_timestamp()))).astimezone(UTC)
