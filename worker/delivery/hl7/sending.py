"""Delivery by HL7: one attempt to tell a RIS what an SR says, and what its answer means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import dcmread

from core.errors import Failed
from worker.delivery.hl7.er7 import NotAnAcknowledgment, read_acknowledgment
from worker.delivery.hl7.mllp import exchange
from worker.delivery.hl7.result import result_message
from worker.delivery.outcomes import Delivered, Outcome, Parked, Postponed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.destinations import Hl7Destination
    from core.settings import Settings
    from db.delivery.deliveries import StoredObject


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
