"""From a stored report to PACS and RIS: one attempt at one delivery, and what its answers mean.

Destinations acknowledge, refuse, fall silent after storing, or are away for days. An answer that
leaves open whether an object arrived is settled by asking (C-FIND); otherwise the same bytes are
sent again, which archives take as the duplicate that it is, and so can a RIS by the control id.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from celery.exceptions import SoftTimeLimitExceeded
from pydicom import dcmread

from core.destinations import DicomDestination, Hl7Destination
from core.errors import Failed, Unavailable
from core.logs import describe
from core.records import ObjectKind
from db import audit, deliveries
from db.session import unit_of_work
from worker.heartbeat import Heartbeat
from worker.hl7.er7 import NotAnAcknowledgment, read_acknowledgment
from worker.hl7.mllp import exchange
from worker.hl7.result import result_message
from worker.persistence import persist
from worker.scu import Answer, StorageUser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from core.settings import Settings
    from db.deliveries import DeliveryClaim, StoredObject
    from worker.services import Services

SENDING_ORDER: Final = (
    ObjectKind.PARAMETRIC_MAP,
    ObjectKind.SECONDARY_CAPTURE,
    ObjectKind.STRUCTURED_REPORT,
)
"""What the SR refers to goes first."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivered:
    """Everything is stored, which `proof` shows: ``"store-status"``, ``"c-find"``, ``"hl7-ack"``.

    `statuses` are those of C-STORE, by SOP Instance UID.
    """

    proof: str
    statuses: dict[str, int]


@dataclass(frozen=True, slots=True)
class Postponed:
    """Not everything is known to be stored; a later attempt may change that."""

    error: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """No later attempt will change this: a person has to."""

    error: str
    status: int | None = None


Outcome = Delivered | Postponed | Parked


def attempt_delivery(services: Services, delivery_id: str) -> None:
    """Claim `delivery_id`, send its objects and store the outcome; without a claim, do nothing.

    Raises
    ------
    Unavailable
        The database is away: nothing was claimed, or the claim ends with its lease.
    """
    settings = services.settings
    with unit_of_work(services.engine) as session:
        claim = deliveries.claim_delivery(
            session, delivery_id, now=datetime.now(UTC), lease_s=settings.lease_s
        )
    if claim is None:  # rung twice, already done, or held by another worker
        log.info("nothing to do delivery=%s", delivery_id)
        return
    with Heartbeat(services.engine, partial(deliveries.extend, claim=claim), settings.lease_s):
        outcome = decide(claim, settings)
        held = persist(
            services.engine,
            lambda session: _record(session, claim, outcome),
            patience_s=settings.lease_s,
        )
    if not held:
        log.warning("claim lost delivery=%s", delivery_id)


def decide(claim: DeliveryClaim, settings: Settings) -> Outcome:
    """Send what was claimed, unless something stands in the way that only a person can mend."""
    destination = settings.destination_named(claim.destination)
    if destination is None:
        return Parked("EPVS_DESTINATIONS does not name this destination any more")
    if isinstance(destination, DicomDestination) and destination.tls:
        # Never fall back to sending patient data in the clear.
        return Parked("tls=1 is set, and this version cannot deliver over TLS")
    damaged = [item.sop_instance_uid for item in claim.objects if not _is_intact(item)]
    if damaged:
        return Parked(f"kept object missing or changed on disk: {', '.join(damaged)}")
    try:
        if isinstance(destination, Hl7Destination):
            return tell(destination, claim.objects, settings)
        objects = sorted(claim.objects, key=lambda item: SENDING_ORDER.index(item.kind))
        user = StorageUser(
            destination, calling_ae=settings.ae_title, timeout_s=settings.network_timeout_s
        )
        return send(user, objects, trust_status=_trusts_status(destination, settings))
    except Unavailable as error:
        return Postponed(error.message)
    except SoftTimeLimitExceeded:
        return Postponed("the attempt took too long")
    except Exception as error:
        # A defect must not end the worker; its text may quote the report, so type and place alone.
        log.exception("unexpected delivery=%s", claim.delivery_id)
        return Postponed(describe(error))


def _trusts_status(destination: DicomDestination, settings: Settings) -> bool:
    return settings.trust_store_status and not destination.commitment


def send(user: StorageUser, objects: list[StoredObject], *, trust_status: bool) -> Outcome:
    """Store `objects` in order; ask the destination wherever its answer proves nothing.

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
    if trust_status and not asked:
        return Delivered("store-status", statuses)
    missing = {item.sop_instance_uid for item in objects} - user.find(objects)
    if missing:
        return Postponed(f"a C-FIND does not show {', '.join(sorted(missing))}")
    return Delivered("c-find", statuses)


def tell(
    destination: Hl7Destination, objects: Sequence[StoredObject], settings: Settings
) -> Outcome:
    """Send what the one SR among `objects` says as an HL7 message.

    Raises
    ------
    Unavailable
        No answer came, or none that is whole.
    """
    if len(objects) != 1:
        return Parked("there is no SR to make the message of")
    try:
        message = result_message(
            dcmread(objects[0].path), destination, application=settings.ae_title
        )
    except Failed as error:
        return Parked(error.message)
    answer = exchange(destination, message.content, timeout_s=settings.network_timeout_s)
    return interpret_acknowledgment(answer, message.control_id)


def interpret_acknowledgment(answer: bytes, control_id: str) -> Outcome:
    """Meaning of an answer to an HL7 message (HL7 v2.5.1 section 2.9.2, table 0008)."""
    try:
        acknowledgment = read_acknowledgment(answer)
    except NotAnAcknowledgment:
        return Postponed("the answer is not an HL7 acknowledgment")
    if acknowledgment.control_id != control_id:
        return Postponed("the acknowledgment is of another message")
    error = f", error {acknowledgment.error}" if acknowledgment.error else ""
    match acknowledgment.code:
        case "AA" | "CA":
            return Delivered("hl7-ack", {})
        case "AE" | "CE" as code:  # this content, whenever it is sent
            return Parked(f"HL7 acknowledgment {code}{error}")
        case "AR" | "CR" as code:  # what the receiver is in at this moment
            return Postponed(f"HL7 acknowledgment {code}{error}")
        case _:
            return Postponed("the HL7 acknowledgment has an unknown code")


def _is_intact(item: StoredObject) -> bool:
    try:
        return hashlib.sha256(item.path.read_bytes()).hexdigest() == item.sha256
    except OSError:
        return False


def _record(session: Session, claim: DeliveryClaim, outcome: Outcome) -> bool:
    """Write the outcome; False, and no change, when the claim is stale."""
    now = datetime.now(UTC)
    if isinstance(outcome, Postponed):
        log.warning("not delivered yet delivery=%s: %s", claim.delivery_id, outcome.error)
        return deliveries.retry_later(
            session, claim, now=now, error=outcome.error, status=outcome.status
        )
    if isinstance(outcome, Parked):
        log.error("delivery waits for a person delivery=%s: %s", claim.delivery_id, outcome.error)
        return deliveries.park(session, claim, now=now, error=outcome.error, status=outcome.status)
    if not deliveries.delivered(
        session, claim, now=now, proof=outcome.proof, statuses=outcome.statuses
    ):
        return False
    warnings = {uid: f"0x{status:04X}" for uid, status in outcome.statuses.items() if status}
    if warnings:
        audit.append(
            session,
            "stored-with-warning",
            revision_id=claim.revision_id,
            detail={"destination": claim.destination, "statuses": warnings},
            now=now,
        )
    log.info("delivered delivery=%s proof=%s", claim.delivery_id, outcome.proof)
    return True
