"""One attempt at delivering a result by HL7, and the meaning of the acknowledgment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import dcmread

from core.errors import Failed
from db.enums import Proof
from worker.delivery.hl7.er7 import NotAnAcknowledgment, read_acknowledgment
from worker.delivery.hl7.mllp import NoAcknowledgmentError, exchange
from worker.delivery.hl7.result import result_message
from worker.delivery.outcomes import Delivered, Outcome, Parked, Postponed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.destinations import Hl7Destination
    from core.settings import Settings
    from db.delivery.claims import StoredObject


def send_result(
    destination: Hl7Destination, objects: Sequence[StoredObject], settings: Settings
) -> Outcome:
    """Send the result in the single SR of `objects` as an HL7 message.

    Raises
    ------
    Unavailable
        No connection.
    ConfigurationError
        The destination requires TLS, and the node's certificate is missing or cannot be used.
    """
    if len(objects) != 1:
        return Parked("there is no SR to build the message from")
    try:
        message = result_message(
            dcmread(objects[0].path), destination, application=settings.ae_title
        )
    except Failed as error:
        return Parked(error.message)
    try:
        response = exchange(
            destination,
            settings.tls_identity,
            message.content,
            timeout_s=settings.network_timeout_s,
        )
    except NoAcknowledgmentError as error:  # it may have arrived: repeated ever more rarely
        return Postponed(error.message)
    return interpret_acknowledgment(response, message.control_id)


def interpret_acknowledgment(response: bytes, control_id: str) -> Outcome:
    """Convert an acknowledgment to a delivery outcome (HL7 v2.5.1 section 2.9.2, table 0008)."""
    try:
        acknowledgment = read_acknowledgment(response)
    except NotAnAcknowledgment:
        return Postponed("the response is not an HL7 acknowledgment")
    if acknowledgment.control_id != control_id:
        return Postponed("the acknowledgment is for another message")
    error = f", error {acknowledgment.error}" if acknowledgment.error else ""
    match acknowledgment.code:
        case "AA" | "CA":
            return Delivered(Proof.HL7_ACK, {})
        case "AE" | "CE" as code:  # the receiver will never accept this content
            return Parked(f"HL7 acknowledgment {code}{error}")
        case "AR" | "CR" as code:  # the receiver cannot accept it now
            return Postponed(f"HL7 acknowledgment {code}{error}")
        case _:
            return Postponed("the HL7 acknowledgment has an unknown code")
