from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from db.clock import current_time
from db.session import unit_of_work

if TYPE_CHECKING:
    from sqlalchemy import Engine


def test_time_is_in_utc_and_passes_within_a_transaction(database_engine: Engine) -> None:
    with unit_of_work(database_engine, read_only=True) as session:
        first, second = current_time(session), current_time(session)
    assert first.tzinfo is UTC
    assert first < second
    assert abs(datetime.now(UTC) - second) < timedelta(seconds=30)
