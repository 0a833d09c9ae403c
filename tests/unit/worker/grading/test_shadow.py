"""Whatever a shadow version does ends as a record; the result is stored by then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from core.errors import Failed, Unavailable
from core.results import ShadowFailure
from worker.grading.shadow import grade_in_shadow

if TYPE_CHECKING:
    from worker.grading.inference.description import ModelDescription


class Refusing:
    """A gate that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def admit(self, _model: str, _version: str) -> ModelDescription:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failed("golden-mismatch", "It differs."), "golden-mismatch"),
        (Failed("model-not-trusted", "Unknown."), "model-not-trusted"),
        (Unavailable("triton", "No response."), "triton-unavailable"),
        (SoftTimeLimitExceeded(), "time-limit"),
        (ValueError("PatientName CANARY^ANNA"), "unexpected"),
    ],
)
def test_no_fault_of_a_shadow_leaves_it(error: BaseException, code: str) -> None:
    nothing = cast("Any", SimpleNamespace())
    gate = cast("Any", Refusing(error))
    results = grade_in_shadow({"severity": "2", "rating": "3"}, nothing, nothing, gate)
    assert [(each.model, each.version) for each in results] == [("rating", "3"), ("severity", "2")]
    for each in results:
        assert isinstance(each.outcome, ShadowFailure)
        assert each.outcome.code == code
        assert "CANARY" not in each.outcome.message
        assert each.seconds >= 0
