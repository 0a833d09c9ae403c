"""One attempt at grading a revision: claim it, run the pipeline, record the outcome."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from celery.exceptions import SoftTimeLimitExceeded

from core.errors import Failed, Unavailable
from core.logs import describe
from core.results import NotGradedStudy
from db.clock import current_time
from db.grading import leases, results, shadow
from db.grading.identity import IDENTITY_MISMATCH, find_mismatch
from db.session import unit_of_work
from worker.claims.heartbeat import Heartbeat
from worker.claims.record_outcome import record_outcome
from worker.claims.termination import Terminated, end_process, raising_when_terminated
from worker.grading.outcomes import (
    AttemptFailed,
    GivenBack,
    Graded,
    NotGraded,
    Outcome,
    Postponed,
)
from worker.grading.report_files import write_report_files

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from core.results import GradedStudy
    from core.settings import Settings
    from db.grading.leases import Claim
    from worker.grading.model_versions import Grading


class GradingServices(Protocol):
    """What an attempt uses of its process; `worker.services.Services` provides it."""

    @property
    def settings(self) -> Settings: ...  # noqa: D102
    @property
    def engine(self) -> Engine: ...  # noqa: D102
    def pin_models(self) -> Grading: ...  # noqa: D102


WORKER_STOPPED: Final = "worker-stopped"
UNAVAILABLE_RETRY_S: Final = 3.0
"""Delay before the next attempt when a service was unavailable."""

log = logging.getLogger(__name__)


def failure_retry_s(attempt: int, max_attempts: int) -> float:
    """Seconds to wait after the failed `attempt` (from 1): 2, 4, 8 … 60; none after the last."""
    return min(2.0**attempt, 60.0) if attempt < max_attempts else 0.0


def attempt_grading(services: GradingServices) -> bool:
    """Claim the revision that is next and grade it.

    Nothing is claimed while a reported model version may not be used: the study waits.

    Returns
    -------
    bool
        False if nothing was claimed.

    Raises
    ------
    Unavailable
        The database does not respond, or Triton before the first use of a version: nothing was
        claimed, or the claim ends with its lease.
    """
    settings = services.settings
    try:
        grading = services.pin_models()
    except Failed as error:
        log.error("no study is taken code=%s: %s", error.code, error)  # noqa: TRY400 - no defect
        return False
    with unit_of_work(services.engine) as session:
        claimed_at = current_time(session)
        claim = leases.claim_next(
            session,
            now=claimed_at,
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            models=grading.versions,
        )
    if claim is None:  # a repeated notification
        log.debug("no study to grade")
        return False
    revision_id = claim.revision_id
    # The report states this second, and the audit trail stores it as the time of the claim, so the
    # same bytes can be rebuilt from the stored data.
    completed_at = claimed_at.replace(microsecond=0)
    versions = " ".join(f"{model}={version}" for model, version in grading.versions.items())
    log.info("grading revision=%s attempt=%d %s", revision_id, claim.attempt, versions)
    with Heartbeat(services.engine, partial(leases.extend, claim=claim), settings.lease_s):
        outcome = grade(services, grading, claim, completed_at)
        held = record_outcome(
            services.engine,
            lambda session: record(session, claim, outcome, settings),
            timeout_s=settings.lease_s,
        )
    if isinstance(outcome, GivenBack):
        end_process()
    if not held:
        log.warning("claim lost, result dropped revision=%s", revision_id)
    elif isinstance(outcome, Graded):
        store_shadow(services, grading, revision_id)
    return True


def store_shadow(services: GradingServices, grading: Grading, revision_id: str) -> None:
    """Let the shadow versions predict, now that the result is stored, and store that too."""
    shadows = grading.grade_in_shadow()
    if not shadows:
        return
    try:
        with unit_of_work(services.engine) as session:
            shadow.store_shadow(session, revision_id, shadows, now=current_time(session))
    except Unavailable as error:
        log.warning("shadow result dropped revision=%s: %s", revision_id, error)


def grade(
    services: GradingServices, grading: Grading, claim: Claim, completed_at: datetime
) -> Outcome:
    """Run the pipeline on the claimed revision and write the report's files."""
    revision_id = claim.revision_id
    try:
        with unit_of_work(services.engine) as session:
            study = results.load_closed_study(session, revision_id)
        with raising_when_terminated():
            result = grading.grade(study, completed_at)
        report = result.report
        paths = write_report_files(report, services.settings.reports_dir) if report else ()
    except Terminated:
        log.warning("given back, attempt not charged revision=%s", revision_id)
        return GivenBack()
    except Unavailable as error:
        log.warning("postponed, attempt not charged revision=%s: %s", revision_id, error)
        return Postponed(f"{error.service}-unavailable", error.message)
    except Failed as error:
        log.exception("attempt failed revision=%s code=%s", revision_id, error.code)
        return AttemptFailed(error.code, error.message)
    except SoftTimeLimitExceeded:
        log.exception("attempt failed revision=%s code=time-limit", revision_id)
        return AttemptFailed("time-limit", "The attempt took too long.")
    except Exception as error:
        # A defect must cost this study an attempt, not stop the worker. The exception's text may
        # quote patient data, so only its type and place are stored.
        log.exception("attempt failed revision=%s code=unexpected", revision_id)
        return AttemptFailed("unexpected", describe(error))
    if isinstance(result, NotGradedStudy):
        _log_not_graded(result)
        return NotGraded(result, paths)
    _log_graded(result)
    return Graded(result, paths)


def record(session: Session, claim: Claim, outcome: Outcome, settings: Settings) -> bool:
    """Write the outcome; False, and no change, when the claim is stale."""
    now = current_time(session)
    match outcome:
        case Graded(study, paths) | NotGraded(study, paths) if study.report and (
            mismatch := find_mismatch(session, claim.revision_id, study.report.identity)
        ):
            log.error("report of another patient or study revision=%s", claim.revision_id)
            for path in paths:
                path.unlink(missing_ok=True)
            detail = f"The report differs from the study's row: {mismatch}."
            return leases.fail(session, claim, now=now, code=IDENTITY_MISMATCH, detail=detail)
        case Graded(study, paths):
            return results.store_graded(
                session,
                claim,
                study,
                paths=paths,
                destinations=settings.destination_list,
                now=now,
            )
        case NotGraded(study, paths):
            return results.store_not_graded(
                session,
                claim,
                study,
                paths=paths,
                destinations=settings.destination_list,
                now=now,
            )
        case Postponed(code, detail):
            delay_s, charge = UNAVAILABLE_RETRY_S, False
        case GivenBack():
            code, detail = WORKER_STOPPED, "the worker was stopped"
            delay_s, charge = 0.0, False
        case AttemptFailed(code, detail):
            delay_s, charge = failure_retry_s(claim.attempt, settings.max_attempts), True
    return leases.release(
        session, claim, now=now, retry_after_s=delay_s, charge=charge, code=code, detail=detail
    )


def _log_graded(study: GradedStudy) -> None:
    log.info(
        "graded revision=%s rating=%d severity=%s %s",
        study.revision_id,
        study.grade.rating,
        study.grade.severity.value,
        " ".join(f"{timing.stage}_s={timing.seconds:.2f}" for timing in study.timings),
    )


def _log_not_graded(study: NotGradedStudy) -> None:
    log.info("not graded revision=%s reason=%s", study.revision_id, study.reason.value)
    if study.report_failure is not None:
        log.error(
            "no report on the study that was not graded revision=%s code=%s: %s",
            study.revision_id,
            study.report_failure.code,
            study.report_failure.message,
        )
