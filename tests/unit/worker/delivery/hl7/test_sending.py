"""Delivery outcomes of HL7 acknowledgments."""

from __future__ import annotations

import pytest

from db.enums import Proof
from worker.delivery.hl7.sending import interpret_acknowledgment
from worker.delivery.outcomes import Delivered, Outcome, Parked, Postponed


def acknowledgment(code: str, control_id: str = "ID1", error: str = "") -> bytes:
    err = f"ERR|||{error}^reason\r" if error else ""
    return f"MSH|^~\\&|RIS||||20260302||ACK|1|P|2.5.1\rMSA|{code}|{control_id}\r{err}".encode()


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (acknowledgment("AA"), Delivered(Proof.HL7_ACK, {})),
        (acknowledgment("CA"), Delivered(Proof.HL7_ACK, {})),
        (acknowledgment("AE"), Parked("HL7 acknowledgment AE")),
        (acknowledgment("CE", error="204"), Parked("HL7 acknowledgment CE, error 204")),
        (acknowledgment("AR"), Postponed("HL7 acknowledgment AR")),
        (acknowledgment("CR", error="207"), Postponed("HL7 acknowledgment CR, error 207")),
        (acknowledgment("CANARY"), Postponed("the HL7 acknowledgment has an unknown code")),
        (acknowledgment("AA", "ID2"), Postponed("the acknowledgment is for another message")),
        (b"OK", Postponed("the response is not an HL7 acknowledgment")),
    ],
)
def test_outcome_of_each_acknowledgment(response: bytes, outcome: Outcome) -> None:
    assert interpret_acknowledgment(response, "ID1") == outcome
