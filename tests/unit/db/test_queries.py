from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import EpvsError
from db.queries import list_studies, show_study
from db.session import unit_of_work
from tests.support.builders.records import (
    PACS,
    STUDY,
    grade_study,
    queue_study,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine


def test_studies_are_listed_by_their_status(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session))
        queue_study(session, study="1.2.3")
        assert {row["study_uid"] for row in list_studies(session)} == {STUDY, "1.2.3"}
        assert [row["study_uid"] for row in list_studies(session, "queued")] == ["1.2.3"]
        assert list_studies(session, "failed") == []


def test_a_study_is_shown_with_revisions_results_and_events(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session), PACS)
    with unit_of_work(database_engine, read_only=True) as session:
        story = show_study(session, STUDY)
        assert story["study"]["n_instances"] == 3
        (revision,) = story["revisions"]
        assert revision["state"] == "graded"
        assert revision["grade"]["rating"] == 2
        assert [len(revision[key]) for key in ("verdicts", "timings", "image_ratings")] == [2, 2, 6]
        assert [o["kind"] for o in revision["objects"]] == ["pm", "sc", "sr", "sr"]
        assert [d["destination"] for d in revision["deliveries"]] == [PACS.name]
        assert [event["event"] for event in story["events"]] == [
            *("receiving", "closed", "queued", "processing", "graded")
        ]
        with pytest.raises(EpvsError, match=r"1\.2\.3 is not known"):
            show_study(session, "1.2.3")
