"""The node's clock: that of the database, so that the hosts' own clocks need not agree.

Leases, quiet periods and waiting times are compared with each other by whichever host comes next.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def current_time(session: Session) -> datetime:
    """Return the current time in UTC, also within a long transaction.

    PostgreSQL is asked; a SQLite file is on the host that asks.
    """
    connection = session.connection()
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    # By the driver: every received image waits for this.
    cursor = connection.connection.cursor()
    try:
        cursor.execute("SELECT clock_timestamp()")
        ((now,),) = cursor.fetchall()
    finally:
        cursor.close()
    return cast("datetime", now).astimezone(UTC)
