"""From a stored report to the PACS: one attempt at one delivery, and what its answers mean.

Destinations acknowledge, refuse, fall silent after storing, or are away for days. An answer that
leaves open whether an object arrived is settled by asking (C-FIND); otherwise the same bytes are
sent again, which archives take as the duplicate that it is, and so can a RIS by the control id.
Where a destination is set so, only its storage commitment counts as proof: asked for here, reported
here or to the receiver.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from celery.exceptions import SoftTimeLimitExceeded

from core.destinations import DicomDestination, Hl7Destination
from core.errors import ConfigurationError, Unavailable
from core.logs import describe
from core.results import ObjectKind
from core.uids import derived_uid
from db import audit
from db.delivery import commitments, deliveries
from db.session import unit_of_work
from worker.claims.heartbeat import Heartbeat
from worker.claims.record_outcome import persist
from worker.delivery.dicom_scu import Answer, StorageUser
from worker.delivery.hl7.sending import send_result
from worker.delivery.outcomes import AwaitingReport, Delivered, Outcome, Parked, Postponed, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from core.settings import Settings
    from db.delivery.deliveries import DeliveryClaim, StoredObject
    from worker.services import Services

SENDING_ORDER: Final = (
    ObjectKind.PARAMETRIC_MAP,
    ObjectKind.SECONDARY_CAPTURE,
    ObjectKind.STRUCTURED_REPORT,
)
"""What the SR refers to goes first."""

COMMITMENT_ATTEMPTS: Final = 3
"""So often commitment is asked for and waited for; then a C-FIND counts. A report that comes still
later counts as well."""

log = logging.getLogger(__name__)


def attempt_delivery(services: Services, delivery_id: str) -> None:
    """Claim `delivery_id`, send its objects and store the outcome; without a claim, do nothing.

    Raises
    ------
    Unavailable
        The database is away: nothing was claimed, or the claim ends with its lease.
    """
    engine, settings = services.engine, services.settings
    with unit_of_work(engine) as session:
        claim = deliveries.claim_delivery(
            session, delivery_id, now=datetime.now(UTC), lease_s=settings.lease_s
        )
    if claim is None:  # rung twice, already done, or held by another worker
        log.info("nothing to do delivery=%s", delivery_id)
        return
    with Heartbeat(engine, partial(deliveries.extend, claim=claim), settings.lease_s):
        outcome = decide(claim, settings)
        held = _record(engine, claim, outcome, settings)
        if held and isinstance(outcome, Stored):
            held = _record(engine, claim, ask_for_commitment(engine, claim, settings), settings)
    if not held:
        log.warning("claim lost delivery=%s", delivery_id)


def decide(claim: DeliveryClaim, settings: Settings) -> Outcome:
    """Send what was claimed, unless something stands in the way that only a person can mend."""
    destination = settings.destination_named(claim.destination)
    if destination is None:
        return Parked("EPVS_DESTINATIONS does not name this destination any more")
    damaged = [item.sop_instance_uid for item in claim.objects if not _is_intact(item)]
    if damaged:
        return Parked(f"kept object missing or changed on disk: {', '.join(damaged)}")
    if isinstance(destination, Hl7Destination):
        return _guarded(claim, lambda: send_result(destination, claim.objects, settings))
    if destination.commitment and claim.stored:
        return Stored({})
    objects = _in_order(claim)

    def attempt() -> Outcome:
        user = _user(destination, settings)
        stored = store(user, objects)
        if not isinstance(stored, Stored) or destination.commitment:
            return stored
        if settings.trust_store_status and not stored.asked:
            return Delivered("store-status", stored.statuses)
        return find(user, objects, stored.statuses)

    return _guarded(claim, attempt)


def store(user: StorageUser, objects: list[StoredObject]) -> Stored | Postponed | Parked:
    """Store `objects` in order; ask the destination where its answer says nothing.

    Raises
    ------
    Unavailable
        No association came about.
    """
    statuses: dict[str, int] = {}
    asked = False
    remaining = objects
    while remaining:
        results = user.store(remaining)
        statuses |= {r.sop_instance_uid: r.status for r in results if r.status is not None}
        last = results[-1]
        if last.answer is Answer.UNKNOWN:
            asked = True
            if last.sop_instance_uid not in user.find([remaining[len(results) - 1]]):
                return Postponed(f"{last.detail}, and a C-FIND does not show it", last.status)
        elif last.answer is Answer.REFUSED:
            return Parked(last.detail, last.status)
        elif last.answer is Answer.TRY_LATER:
            return Postponed(last.detail, last.status)
        remaining = remaining[len(results) :]
    return Stored(statuses, asked)


def find(
    user: StorageUser, objects: list[StoredObject], statuses: dict[str, int]
) -> Delivered | Postponed:
    """Let a C-FIND show that everything is stored.

    Raises
    ------
    Unavailable
        No association came about.
    """
    missing = {item.sop_instance_uid for item in objects} - user.find(objects)
    if missing:
        return Postponed(f"a C-FIND does not show {', '.join(sorted(missing))}")
    return Delivered("c-find", statuses)


def ask_for_commitment(engine: Engine, claim: DeliveryClaim, settings: Settings) -> Outcome:
    """Ask for the commitment of everything; where that is not offered, a C-FIND has to do."""
    destination = settings.destination_named(claim.destination)
    if not isinstance(destination, DicomDestination):
        return Parked("EPVS_DESTINATIONS does not name this destination any more")
    objects = _in_order(claim)

    def attempt() -> Outcome:
        user = _user(destination, settings)
        result = user.request_commitment(
            objects,
            _transaction_uid(claim),
            on_report=lambda information: commitments.take_report(engine, information),
        )
        if result.answer is Answer.REFUSED or claim.attempt > COMMITMENT_ATTEMPTS:
            log.warning("no storage commitment from=%s: %s", destination.name, result.detail)
            return find(user, objects, {})
        if result.answer is Answer.STORED:
            return AwaitingReport(_transaction_uid(claim))
        return Postponed(result.detail, result.status)

    return _guarded(claim, attempt)


def _guarded(claim: DeliveryClaim, attempt: Callable[[], Outcome]) -> Outcome:
    try:
        return attempt()
    except Unavailable as error:
        return Postponed(error.message)
    except ConfigurationError as error:  # a certificate that is being renewed, for example
        return Postponed(str(error))
    except SoftTimeLimitExceeded:
        return Postponed("the attempt took too long")
    except Exception as error:
        # A defect must not end the worker; its text may quote the report, so type and place alone.
        log.exception("unexpected delivery=%s", claim.delivery_id)
        return Postponed(describe(error))


def _user(destination: DicomDestination, settings: Settings) -> StorageUser:
    return StorageUser(
        destination,
        calling_ae=settings.ae_title,
        timeout_s=settings.network_timeout_s,
        identity=settings.tls_identity,
    )


def _in_order(claim: DeliveryClaim) -> list[StoredObject]:
    return sorted(claim.objects, key=lambda item: SENDING_ORDER.index(item.kind))


def _transaction_uid(claim: DeliveryClaim) -> str:
    """Transaction UID of the commitment that this claim may ask for: no other claim has it."""
    return derived_uid("commitment", {"delivery": claim.delivery_id, "token": claim.token})


def _is_intact(item: StoredObject) -> bool:
    try:
        return hashlib.sha256(item.path.read_bytes()).hexdigest() == item.sha256
    except OSError:
        return False


def _record(engine: Engine, claim: DeliveryClaim, outcome: Outcome, settings: Settings) -> bool:
    """Write the outcome; False, and no change, when the claim is stale."""
    return persist(
        engine,
        lambda session: _write(session, claim, outcome, settings),
        patience_s=settings.lease_s,
    )


def _write(session: Session, claim: DeliveryClaim, outcome: Outcome, settings: Settings) -> bool:
    now = datetime.now(UTC)
    match outcome:
        case Postponed(error, status):
            log.warning("not delivered yet delivery=%s: %s", claim.delivery_id, error)
            return deliveries.retry_later(session, claim, now=now, error=error, status=status)
        case Parked(error, status):
            log.error("delivery waits for a person delivery=%s: %s", claim.delivery_id, error)
            return deliveries.park(session, claim, now=now, error=error, status=status)
        case AwaitingReport(transaction_uid):
            log.info("storage commitment asked for delivery=%s", claim.delivery_id)
            return commitments.await_report(
                session,
                claim,
                transaction_uid,
                now=now,
                patience_s=settings.commitment_timeout_s,
            )
        case Stored(statuses):
            # A row before the request is sent: the report may come before the answer to it.
            held = commitments.open_request(
                session, claim, _transaction_uid(claim), now=now, statuses=statuses
            )
        case Delivered(proof, statuses):
            held = deliveries.delivered(session, claim, now=now, proof=proof, statuses=statuses)
            log.info("delivered delivery=%s proof=%s", claim.delivery_id, proof)
    if held:
        _note_warnings(session, claim, statuses, now)
    return held


def _note_warnings(
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
