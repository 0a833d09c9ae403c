from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from db.retention.forecast import read_growth
from db.retention.policy import Policy
from db.retention.pruning import prune
from db.session import unit_of_work
from tests.support.builders.records import after
from tests.support.builders.stored_studies import delivered_study

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

DAY_S = 86_400.0
MONTH = timedelta(days=30)


def test_growth_is_what_arrived_less_what_was_removed_in_a_week(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        assert read_growth(session) is None
        _, old, old_reports = delivered_study(session, tmp_path, n=5)
        assert read_growth(session, now=after(DAY_S / 2)) is None
        _, images, reports = delivered_study(session, tmp_path, study="1.2.840.99.2", at=38 * DAY_S)
    sizes = [sum(p.stat().st_size for p in each) for each in (old, old_reports, images, reports)]
    prune(database_engine, Policy(MONTH, MONTH, None, None), now=after(37 * DAY_S))
    with unit_of_work(database_engine) as session:
        growth = read_growth(session, now=after(40 * DAY_S))
        later = read_growth(session, now=after(50 * DAY_S))
    assert growth is not None
    assert later is not None
    assert growth.images * 7 == pytest.approx(sizes[2] - sizes[0])
    assert growth.reports * 7 == pytest.approx(sizes[3] - sizes[1])
    assert (later.images, later.reports, later.days) == (0, 0, 7)
