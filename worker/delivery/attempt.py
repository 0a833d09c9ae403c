"""One attempt at a delivery: claim it, send the report, record the outcome.

If a response is missing or ambiguous, a C-FIND decides whether the object was stored. Otherwise the
same bytes are sent again: archives recognise the resend as a duplicate, and a RIS can recognise it
by the message control ID. For a destination with storage commitment, only the commitment counts as
proof; it is requested here and reported here or to the receiver.
"""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from celery.exceptions import SoftTimeLimitExceeded

from core.commitment import Reporter, respond_to_report
from core.destinations import DicomDestination, Hl7Destination
from core.errors import ConfigurationError, Unavailable
from core.logs import describe
from core.results import ObjectKind
from core.uids import derived_uid
from db import audit, refusals
from db.clock import current_time
from db.delivery import claims, commitments, order
from db.enums import Proof
from db.refusals import Kind, Tally
from db.session import unit_of_work
from worker.claims.heartbeat import Heartbeat
from worker.claims.record_outcome import record_outcome
from worker.delivery.dicom_scu import DicomScu
from worker.delivery.hl7.sending import send_result
from worker.delivery.outcomes import AwaitingReport, Delivered, Outcome, Parked, Postponed, Stored
from worker.delivery.statuses import Response, is_out_of_resources

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from core.commitment import ReportRefusal
    from core.settings import Settings
    from db.delivery.claims import DeliveryClaim, StoredObject
    from worker.services import Services

SENDING_ORDER: Final = (
    ObjectKind.PARAMETRIC_MAP,
    ObjectKind.SECONDARY_CAPTURE,
    ObjectKind.STRUCTURED_REPORT,
)
"""The objects that the SR refers to are sent before it."""

COMMITMENT_ATTEMPTS: Final = 3
"""After this many attempts without a report, a C-FIND is accepted as proof. A report that arrives
later still replaces it."""

log = logging.getLogger(__name__)


def attempt_delivery(services: Services) -> bool:
    """Claim the delivery that is next and carry it out.

    Returns
    -------
    bool
        False if no delivery may be sent now.

    Raises
    ------
    Unavailable
        The database does not respond: nothing was claimed, or the claim ends with its lease.
    """
    settings = services.settings
    with unit_of_work(services.engine) as session:
        claim = order.claim_next(
            session,
            now=current_time(session),
            lease_s=settings.lease_s,
            per_destination=settings.deliveries_per_destination,
        )
    if claim is None:  # a repeated notification, or it has to wait
        log.debug("no delivery to send")
        return False
    carry_out(services, claim)
    return True


def carry_out(services: Services, claim: DeliveryClaim) -> None:
    """Send the objects of a claimed delivery and record the outcome."""
    engine, settings = services.engine, services.settings
    with Heartbeat(engine, partial(claims.extend, claim=claim), settings.lease_s):
        outcome = decide(claim, settings)
        held = _record(engine, claim, outcome, settings)
        if held and isinstance(outcome, Stored):
            outcome = request_commitment(engine, claim, settings)
            held = _record(engine, claim, outcome, settings)
    if not held:
        log.warning("claim lost delivery=%s", claim.delivery_id)


def decide(claim: DeliveryClaim, settings: Settings) -> Outcome:
    """Send the claimed objects, unless only an operator can remove what prevents it."""
    destination = settings.destination_named(claim.destination)
    if destination is None:
        return Parked("EPVS_DESTINATIONS no longer names this destination")
    damaged = [item.sop_instance_uid for item in claim.objects if not _is_intact(item)]
    if damaged:
        return Parked(f"report file missing or changed on disk: {', '.join(damaged)}")
    if isinstance(destination, Hl7Destination):
        return _guarded(claim, lambda: send_result(destination, claim.objects, settings))
    if destination.commitment and claim.stored:
        return Stored({})
    objects = _in_order(claim)

    def attempt() -> Outcome:
        scu = _scu(destination, settings)
        stored = store(scu, objects)
        if not isinstance(stored, Stored) or destination.commitment:
            return stored
        if settings.trust_store_status and not stored.queried:
            return Delivered(Proof.STORE_STATUS, stored.statuses)
        return find(scu, objects, stored.statuses)

    return _guarded(claim, attempt)


def store(scu: DicomScu, objects: list[StoredObject]) -> Stored | Postponed | Parked:
    """Store `objects` in order; where the response is missing or ambiguous, query by C-FIND.

    Raises
    ------
    Unavailable
        No association could be established.
    """
    statuses: dict[str, int] = {}
    queried = False
    remaining = objects
    while remaining:
        results = scu.store(remaining)
        statuses |= {r.sop_instance_uid: r.status for r in results if r.status is not None}
        last = results[-1]
        if last.response is Response.UNKNOWN:
            queried = True
            if last.sop_instance_uid not in scu.find([remaining[len(results) - 1]]):
                return Postponed(f"{last.detail}, and a C-FIND does not show it", last.status)
        elif last.response is Response.REFUSED:
            return Parked(last.detail, last.status)
        elif last.response is Response.TRY_LATER:
            available = not is_out_of_resources(last.status)
            return Postponed(last.detail, last.status, available)
        remaining = remaining[len(results) :]
    return Stored(statuses, queried)


def find(
    scu: DicomScu, objects: list[StoredObject], statuses: dict[str, int]
) -> Delivered | Postponed:
    """Check by C-FIND that everything is stored.

    Raises
    ------
    Unavailable
        No association could be established.
    """
    missing = {item.sop_instance_uid for item in objects} - scu.find(objects)
    if missing:
        return Postponed(f"a C-FIND does not show {', '.join(sorted(missing))}")
    return Delivered(Proof.C_FIND, statuses)


def request_commitment(engine: Engine, claim: DeliveryClaim, settings: Settings) -> Outcome:
    """Request storage commitment; if the destination does not offer it, check by C-FIND."""
    destination = settings.destination_named(claim.destination)
    if not isinstance(destination, DicomDestination):
        return Parked("EPVS_DESTINATIONS no longer names this destination")
    objects = _in_order(claim)

    def attempt() -> Outcome:
        scu = _scu(destination, settings)
        reporter = Reporter.called_by_node(destination)
        result = scu.request_commitment(
            objects,
            _transaction_uid(claim),
            on_report=lambda information: respond_to_report(
                information,
                lambda report: commitments.settle(
                    engine, report, reporter, settings.destination_named
                ),
                lambda refusal: _count_refused(engine, reporter, refusal),
            ),
        )
        if result.response is Response.REFUSED or claim.attempt > COMMITMENT_ATTEMPTS:
            log.warning("no storage commitment from=%s: %s", destination.name, result.detail)
            return find(scu, objects, {})
        if result.response is Response.STORED:
            return AwaitingReport(_transaction_uid(claim))
        return Postponed(result.detail, result.status)

    return _guarded(claim, attempt)


def _count_refused(engine: Engine, reporter: Reporter, refusal: ReportRefusal) -> None:
    kind = Kind("report-refused", refusal, reporter.ae_title, reporter.address)
    log.warning("%s reason=%s from=%s", *kind[:2], reporter.called)
    with unit_of_work(engine) as session:
        refusals.count(session, {kind: Tally.once()})


def _guarded(claim: DeliveryClaim, attempt: Callable[[], Outcome]) -> Outcome:
    try:
        return attempt()
    except Unavailable as error:
        return Postponed(error.message, available=False)
    except ConfigurationError as error:  # a certificate that is being renewed, for example
        return Postponed(str(error))
    except SoftTimeLimitExceeded:
        return Postponed("the attempt took too long")
    except Exception as error:
        # A defect must not stop the worker. The exception's text may quote the report, so only its
        # type and place are stored.
        log.exception("unexpected delivery=%s", claim.delivery_id)
        return Postponed(describe(error))


def _scu(destination: DicomDestination, settings: Settings) -> DicomScu:
    return DicomScu(
        destination,
        calling_ae=settings.ae_title,
        timeout_s=settings.network_timeout_s,
        identity=settings.tls_identity,
    )


def _in_order(claim: DeliveryClaim) -> list[StoredObject]:
    return sorted(claim.objects, key=lambda item: SENDING_ORDER.index(item.kind))


def _transaction_uid(claim: DeliveryClaim) -> str:
    """Transaction UID of this claim's commitment request; every claim has its own."""
    return derived_uid("commitment", {"delivery": claim.delivery_id, "token": claim.token})


def _is_intact(item: StoredObject) -> bool:
    try:
        return hashlib.sha256(item.path.read_bytes()).hexdigest() == item.sha256
    except OSError:
        return False


def _record(engine: Engine, claim: DeliveryClaim, outcome: Outcome, settings: Settings) -> bool:
    """Log and record an outcome; False, and no change, when the claim is stale."""
    _log(claim, outcome)
    return record_outcome(
        engine,
        lambda session: record(session, claim, outcome, settings),
        timeout_s=settings.lease_s,
    )


def _log(claim: DeliveryClaim, outcome: Outcome) -> None:
    match outcome:
        case Postponed(error):
            log.warning("postponed delivery=%s: %s", claim.delivery_id, error)
        case Parked(error, _):
            log.error("parked delivery=%s: %s", claim.delivery_id, error)
        case AwaitingReport():
            log.info("storage commitment requested delivery=%s", claim.delivery_id)
        case Delivered(proof, _):
            log.info("delivered delivery=%s proof=%s", claim.delivery_id, proof)


def record(session: Session, claim: DeliveryClaim, outcome: Outcome, settings: Settings) -> bool:
    """Write an outcome; False, and no change, when the claim is stale."""
    now = current_time(session)
    match outcome:
        case Postponed(error, status, available):
            return claims.record_postponed(
                session, claim, now=now, error=error, status=status, available=available
            )
        case Parked(error, status):
            return claims.record_parked(session, claim, now=now, error=error, status=status)
        case AwaitingReport(transaction_uid):
            return commitments.await_report(
                session, claim, transaction_uid, now=now, timeout_s=settings.commitment_timeout_s
            )
        case Stored(statuses):
            # The row must exist before the request is sent: the report may precede the response.
            held = commitments.open_request(
                session, claim, _transaction_uid(claim), now=now, statuses=statuses
            )
        case Delivered(proof, statuses):
            held = claims.record_delivered(session, claim, now=now, proof=proof, statuses=statuses)
    if held:
        _record_warnings(session, claim, statuses, now)
    return held


def _record_warnings(
    session: Session, claim: DeliveryClaim, statuses: dict[str, int], now: datetime
) -> None:
    warnings = {uid: f"0x{status:04X}" for uid, status in statuses.items() if status}
    if warnings:
        audit.append(
            session,
            "stored-with-warning",
            revision_id=claim.revision_id,
            detail={"destination": claim.destination, "statuses": warnings},
            now=now,
        )
