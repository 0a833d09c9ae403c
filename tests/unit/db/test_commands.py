"""The operator's commands: grade a study again, attempt parked deliveries again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import EpvsError
from db import outbox
from db.commands import reprocess
from db.grading.results import load_closed_study, store_not_graded
from db.session import unit_of_work
from tests.support.builders.records import (
    STUDY,
    after,
    claim,
    grade_study,
    not_graded_study,
    queue_study,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine


def test_reprocessing_opens_a_queued_revision_with_the_same_instances(
    database_engine: Engine,
) -> None:
    with unit_of_work(database_engine) as session:
        first = queue_study(session)
        with pytest.raises(EpvsError, match="still queued"):
            reprocess(session, STUDY, now=after(31))
        held = claim(session, first)
        store_not_graded(session, held, not_graded_study(first), now=after(40))
        second = reprocess(session, STUDY, now=after(50))
        assert [item.target_id for item in outbox.due(session, now=after(50))] == [second]
        study = load_closed_study(session, second)
        assert (study.revision_number, len(study.instances)) == (2, 3)
        with pytest.raises(EpvsError, match="still queued"):
            reprocess(session, STUDY, now=after(51))
        with pytest.raises(EpvsError, match="not known"):
            reprocess(session, "1.2.3", now=after(51))
        grade_study(session, second, at=60)
        assert load_closed_study(session, reprocess(session, STUDY, now=after(70))).instances
