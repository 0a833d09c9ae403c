"""One attempt at grading a revision: claim it, run the pipeline, store how it ended."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from celery.exceptions import SoftTimeLimitExceeded

from core.errors import Failed, Rejected, Unavailable
from core.logs import describe
from db.grading import leases, results
from db.session import unit_of_work
from worker.claims.heartbeat import Heartbeat
from worker.claims.record_outcome import persist
from worker.grading.report_files import keep_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy.orm import Session

    from core.results import Report
    from core.studies import ClosedStudy
    from db.grading.leases import Claim
    from worker.services import Services

UNAVAILABLE_RETRY_S: Final = 3.0
"""A service that was away is asked again so soon: the study has lost nothing but this time."""

log = logging.getLogger(__name__)


def failure_retry_s(attempt: int, max_attempts: int) -> float:
    """Seconds to wait after the failed `attempt` (from 1): 2, 4, 8 … 60; none after the last."""
    return min(2.0**attempt, 60.0) if attempt < max_attempts else 0.0


def attempt_grading(services: Services, revision_id: str) -> None:
    """Claim `revision_id` and grade it; without a claim, do nothing.

    Raises
    ------
    Unavailable
        The database is away: nothing was claimed, or the claim ends with its lease.
    """
    settings = services.settings
    claimed_at = datetime.now(UTC)
    # The report carries this second, and the audit trail keeps it as that of the claim: the same
    # bytes can be built again from what is stored.
    completed_at = claimed_at.replace(microsecond=0)
    with unit_of_work(services.engine) as session:
        claim = leases.claim_revision(
            session,
            revision_id,
            now=claimed_at,
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
        )
    if claim is None:  # rung twice, already done, or held by another worker
        log.info("nothing to do revision=%s", revision_id)
        return
    log.info("grading revision=%s attempt=%d", revision_id, claim.attempt)
    with Heartbeat(services.engine, partial(leases.extend, claim=claim), settings.lease_s):
        outcome = _grade(services, claim, completed_at)
        held = persist(services.engine, outcome, patience_s=settings.lease_s)
    if not held:
        log.warning("claim lost, result dropped revision=%s", revision_id)


def _grade(services: Services, claim: Claim, completed_at: datetime) -> Callable[[Session], bool]:
    """Run the pipeline; the answer is how to write its end to the database."""
    revision_id = claim.revision_id
    try:
        with unit_of_work(services.engine) as session:
            study = results.load_closed_study(session, revision_id)
        try:
            graded = services.grade(study, completed_at)
        except Rejected as rejection:
            log.info("rejected revision=%s reason=%s", revision_id, rejection.reason.value)
            return _reject(services, claim, study, rejection, completed_at)
        paths = keep_report(graded.report, services.settings.reports_dir)
    except Unavailable as error:
        log.warning("put back, no attempt charged revision=%s: %s", revision_id, error)
        return _release(
            claim,
            retry_after_s=UNAVAILABLE_RETRY_S,
            charge=False,
            code=f"{error.service}-unavailable",
            detail=error.message,
        )
    except Failed as error:
        log.exception("attempt failed revision=%s code=%s", revision_id, error.code)
        return _charge(services, claim, error.code, error.message)
    except SoftTimeLimitExceeded:
        log.exception("attempt failed revision=%s code=time-limit", revision_id)
        return _charge(services, claim, "time-limit", "The attempt took too long.")
    except Exception as error:
        # A defect of ours or of a library must cost an attempt of this study, not the worker;
        # its text may quote patient data, so type and place alone are kept.
        log.exception("attempt failed revision=%s code=unexpected", revision_id)
        return _charge(services, claim, "unexpected", describe(error))
    log.info(
        "graded revision=%s rating=%d severity=%s %s",
        revision_id,
        graded.grade.rating,
        graded.grade.severity.value,
        " ".join(f"{timing.stage}_s={timing.seconds:.2f}" for timing in graded.timings),
    )
    return lambda session: results.store_graded(
        session,
        claim,
        graded,
        paths=paths,
        destinations=services.settings.destination_list,
        now=datetime.now(UTC),
    )


def _reject(
    services: Services,
    claim: Claim,
    study: ClosedStudy,
    rejection: Rejected,
    completed_at: datetime,
) -> Callable[[Session], bool]:
    """Report the rejection where destinations ask for that; it stands also without a report.

    Raises
    ------
    Unavailable
        The disk does not take the report; the study is graded again, no attempt charged.
    """
    report: Report | None = None
    paths: tuple[Path, ...] = ()
    obstacle: Failed | None = None
    try:
        report = services.report_rejection(study, rejection, completed_at)
        paths = keep_report(report, services.settings.reports_dir) if report else ()
    except Unavailable:
        raise
    except Failed as error:
        obstacle = error
    except Exception as error:  # noqa: BLE001 - a defect of ours must not undo the result
        obstacle = Failed("unexpected", describe(error))
    if obstacle is not None:
        report, paths = None, ()
        log.error(
            "rejection without report revision=%s code=%s: %s",
            claim.revision_id,
            obstacle.code,
            obstacle.message,
        )
    return lambda session: results.store_rejected(
        session,
        claim,
        rejection,
        report=report,
        paths=paths,
        obstacle=obstacle,
        destinations=services.settings.destination_list,
        now=datetime.now(UTC),
    )


def _charge(services: Services, claim: Claim, code: str, detail: str) -> Callable[[Session], bool]:
    return _release(
        claim,
        retry_after_s=failure_retry_s(claim.attempt, services.settings.max_attempts),
        charge=True,
        code=code,
        detail=detail,
    )


def _release(
    claim: Claim, *, retry_after_s: float, charge: bool, code: str, detail: str
) -> Callable[[Session], bool]:
    return lambda session: leases.release(
        session,
        claim,
        now=datetime.now(UTC),
        retry_after_s=retry_after_s,
        charge=charge,
        code=code,
        detail=detail,
    )
