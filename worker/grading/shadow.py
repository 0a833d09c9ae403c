"""Grading in shadow: versions that are not reported predict on what the reported ones were given.

It runs after the result is stored and its delivery planned, so nothing here can change or delay
the result. Whatever happens, it ends as a `ShadowResult`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from celery.exceptions import SoftTimeLimitExceeded

from core.errors import Failed, Unavailable
from core.logs import describe
from core.results import ShadowFailure, ShadowRating, ShadowResult, ShadowSeverity
from worker.grading.inference import InferenceClient
from worker.grading.stages.grade import grade
from worker.grading.stages.rating import prepare_rating

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.grading.inference.gate import Gate
    from worker.grading.records import ModelRun

log = logging.getLogger(__name__)


def grade_in_shadow(
    shadows: Mapping[str, str], run: ModelRun, reported: InferenceClient, gate: Gate
) -> tuple[ShadowResult, ...]:
    """Let shadow versions predict for one study.

    Parameters
    ----------
    shadows : mapping
        Version by name of the model.
    run : ModelRun
        Of the reported versions on the same study.
    reported : InferenceClient
    gate : Gate
        Checks a shadow version before its first use.
    """
    results = []
    for model, version in sorted(shadows.items()):
        started = time.perf_counter()
        outcome = _attempt(model, version, run, reported, gate)
        seconds = time.perf_counter() - started
        results.append(ShadowResult(model, version, outcome, seconds))
    return tuple(results)


def _attempt(
    model: str, version: str, run: ModelRun, reported: InferenceClient, gate: Gate
) -> ShadowRating | ShadowSeverity | ShadowFailure:
    predict = _rate if model == "rating" else _assess
    try:
        return predict(version, run, reported, gate)
    except Failed as error:
        failure = ShadowFailure(error.code, error.message)
    except Unavailable as error:
        failure = ShadowFailure(f"{error.service}-unavailable", error.message)
    except SoftTimeLimitExceeded:
        failure = ShadowFailure("time-limit", "The attempt took too long.")
    except Exception as error:
        # As for an attempt at grading: the text of the exception may quote patient data.
        log.exception("shadow failed model=%s version=%s code=unexpected", model, version)
        return ShadowFailure("unexpected", describe(error))
    log.warning("no shadow model=%s version=%s: %s", model, version, failure.message)
    return failure


def _rate(version: str, run: ModelRun, reported: InferenceClient, gate: Gate) -> ShadowRating:
    model = gate.admit("rating", version)
    rating_input = run.rating_input
    if model.enhancement != reported.enhancement:
        rating_input = prepare_rating(run.volume, run.registration, enhancement=model.enhancement)
    client = InferenceClient(reported.server, rating=model, severity=reported.severity)
    graded = grade(rating_input, client.rate(rating_input), run.severity_output)
    return ShadowRating(
        model.identity, graded.images, graded.rating, graded.majority_rating, graded.confidence
    )


def _assess(version: str, run: ModelRun, reported: InferenceClient, gate: Gate) -> ShadowSeverity:
    model = gate.admit("severity", version)
    client = InferenceClient(reported.server, rating=reported.rating, severity=model)
    graded = grade(run.rating_input, run.rating_output, client.assess(run.severity_input))
    return ShadowSeverity(model.identity, graded.severity, graded.severity_probability)
