"""Roles of model versions: every transition, its audit event, and who was faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from core.errors import EpvsError
from core.results import Severity, ShadowFailure, ShadowRating, ShadowResult, ShadowSeverity
from db import model_use
from db.enums import ModelRole
from db.grading.shadow import store_shadow
from db.models import AuditEvent, ModelAssignment
from db.session import unit_of_work
from db.views import read_view
from tests.support.builders.records import PACS, after, grade_study, graded_study, queue_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

FACTS = {"weights_sha256": "a" * 64, "description_sha256": "b" * 64}


@pytest.fixture
def unit(database_engine: Engine) -> Iterator[Session]:
    """A transaction on an empty database."""
    with unit_of_work(database_engine) as session:
        yield session


@pytest.fixture
def decide(unit: Session) -> Callable[..., None]:
    """Call a function of `model_use` for the rating model, a second later each time."""
    seconds = iter(range(1000))

    def call(function: Callable[..., object], *version: str) -> None:
        facts = (FACTS,) if version else ()
        now = after(next(seconds))
        function(unit, "rating", *version, *facts, operator="radiologist-3", now=now)

    return call


def reported(session: Session) -> str | None:
    return model_use.read_versions(session, ModelRole.REPORTED).get("rating")


def in_shadow(session: Session) -> str | None:
    return model_use.read_versions(session, ModelRole.SHADOW).get("rating")


def trail(session: Session) -> list[tuple[str, str]]:
    events = session.scalars(select(AuditEvent).order_by(AuditEvent.seq))
    return [(e.event, e.detail["version"]) for e in events if e.event.startswith("model-")]


def test_the_first_worker_decides_only_where_nobody_has(
    unit: Session, decide: Callable[..., None]
) -> None:
    decide(model_use.promote, "1")
    model_use.record_first(unit, {"rating": "3", "severity": "2"}, now=after(5))
    model_use.record_first(unit, {"rating": "4", "severity": "4"}, now=after(6))
    assert model_use.read_versions(unit, ModelRole.REPORTED) == {"rating": "1", "severity": "2"}
    assert trail(unit) == [("model-promoted", "1"), ("model-promoted", "2")]


def test_rollbacks_undo_promotions_in_reverse_order(
    unit: Session, decide: Callable[..., None]
) -> None:
    model_use.record_first(unit, {"rating": "1"}, now=after(0))
    for version in ("2", "3", "2"):
        decide(model_use.promote, version)
    for expected in ("3", "2", "1"):
        assert model_use.find_rollback(unit, "rating") == expected
        decide(model_use.rollback, expected)
        assert reported(unit) == expected
    with pytest.raises(EpvsError, match="No version of rating was reported before"):
        model_use.find_rollback(unit, "rating")
    assert [event for event, _ in trail(unit)] == [
        *["model-promoted"] * 4,
        *["model-rolled-back"] * 3,
    ]
    last = model_use.find_assignment(unit, "rating", ModelRole.REPORTED)
    assert last is not None
    assert last.operator == "radiologist-3"


def test_a_shadow_ends_when_it_is_reported(unit: Session, decide: Callable[..., None]) -> None:
    decide(model_use.promote, "1")
    decide(model_use.shadow, "2")
    assert (reported(unit), in_shadow(unit)) == ("1", "2")
    decide(model_use.shadow, "3")
    decide(model_use.promote, "2")
    assert in_shadow(unit) == "3"
    decide(model_use.promote, "3")
    assert (reported(unit), in_shadow(unit)) == ("3", None)
    assert trail(unit)[-1] == ("model-shadow-ended", "3")


def test_what_changes_nothing_is_refused(unit: Session, decide: Callable[..., None]) -> None:
    with pytest.raises(EpvsError, match="No version of rating grades in shadow"):
        decide(model_use.end_shadow)
    decide(model_use.promote, "1")
    for function in (model_use.promote, model_use.shadow):
        with pytest.raises(EpvsError, match="is reported already"):
            decide(function, "1")
    decide(model_use.shadow, "2")
    with pytest.raises(EpvsError, match="graded in shadow already"):
        decide(model_use.shadow, "2")
    decide(model_use.end_shadow)
    with pytest.raises(EpvsError, match="grades in shadow"):
        decide(model_use.end_shadow)
    assert len(trail(unit)) == 3


def test_a_decision_on_an_outdated_state_is_refused(
    unit: Session, decide: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(model_use.promote, "1")
    seen = model_use.find_assignment(unit, "rating", ModelRole.REPORTED)
    decide(model_use.promote, "2")
    monkeypatch.setattr(model_use, "find_assignment", lambda *_: seen)  # as another process saw it
    with pytest.raises(EpvsError, match="Somebody else has just decided"):
        decide(model_use.promote, "3")
    assert len(unit.scalars(select(ModelAssignment)).all()) == 2


def test_shadow_results_are_paired_and_change_no_other_view(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        grade_study(session, revision_id, PACS, at=110)
        views = ("worklist_results", "model_usage", "turnaround", "failures", "deliveries_pending")
        before = {view: read_view(session, view) for view in views}
    grade = graded_study("r").grade
    other = tuple(
        type(image)(image.crop, (image.rating + 1) % 5 if number == 0 else image.rating, 0.6)
        for number, image in enumerate(grade.images)
    )
    rating = ShadowRating(grade.rating_model, other, grade.rating, grade.majority_rating, 0.6)
    flipped = next(each for each in Severity if each is not grade.severity)
    severity = ShadowSeverity(grade.severity_model, flipped, 0.3)
    results = [
        ShadowResult("rating", "2", rating, 0.5),
        ShadowResult("severity", "2", severity, 1.5),
    ]
    with unit_of_work(database_engine) as session:
        store_shadow(session, revision_id, results, now=after(111))
    with unit_of_work(database_engine, read_only=True) as session:
        pairs = {row["model"]: row for row in read_view(session, "shadow_results")}
        assert {view: read_view(session, view) for view in views} == before
        counts = model_use.count_studies(session)
    assert (pairs["rating"]["agree"], pairs["rating"]["equal_images"]) == (True, 5)
    assert (pairs["severity"]["agree"], pairs["severity"]["equal_images"]) == (False, None)
    assert pairs["severity"]["reported_severity"] == grade.severity
    assert pairs["severity"]["shadow_severity"] == flipped
    assert pairs["severity"]["shadow_probability"] == 0.3
    assert pairs["rating"]["seconds"] == 0.5
    assert counts["rating", "2"] == (0, 1)
    assert counts["rating", grade.rating_model.version][0] == 1


def test_a_failed_shadow_has_its_code(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        grade_study(session, revision_id, at=110)
        failure = ShadowFailure("golden-mismatch", "It differs.")
        store_shadow(
            session, revision_id, [ShadowResult("rating", "2", failure, 0.1)], now=after(111)
        )
    with unit_of_work(database_engine, read_only=True) as session:
        (row,) = read_view(session, "shadow_results")
        assert (row["failure"], row["agree"], row["shadow_rating"]) == (
            "golden-mismatch",
            None,
            None,
        )
        assert model_use.count_studies(session).get(("rating", "2")) is None
