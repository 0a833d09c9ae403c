"""HL7 deliveries to a receiver that accepts, refuses or fails."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from core.destinations import Hl7Destination
from core.results import ObjectKind
from core.settings import load_settings
from db.delivery.claims import DeliveryClaim
from db.enums import Proof
from tests.support.builders.made_study import report_object, stored_object
from tests.support.builders.sources import classic, inputs
from tests.support.servers.mllp import Fault, ScriptedReceiver, scripted_receiver
from tests.support.servers.ports import free_port
from worker.commands import doctor
from worker.delivery.attempt import decide
from worker.delivery.outcomes import Delivered, Outcome, Parked, Postponed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from db.delivery.claims import StoredObject

TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def sr(tmp_path_factory: pytest.TempPathFactory) -> StoredObject:
    folder = tmp_path_factory.mktemp("report")
    return stored_object(inputs(classic(folder)).build().objects[-1], folder)


@pytest.fixture
def ris() -> Iterator[ScriptedReceiver]:
    with scripted_receiver() as scripted:
        yield scripted


def deliver(destination: Hl7Destination, *objects: StoredObject) -> Outcome:
    settings = load_settings(destinations=destination.name, network_timeout_s=TIMEOUT_S)
    return decide(DeliveryClaim("d", "r", destination.name, 1, 1, objects, stored=False), settings)


@pytest.mark.parametrize("response", ["AA", "CA", Fault.ACCEPT_BYTE_BY_BYTE])
def test_accepted_is_delivered(
    ris: ScriptedReceiver, sr: StoredObject, response: str | Fault
) -> None:
    ris.script.append(response)
    assert deliver(ris.destination, sr) == Delivered(Proof.HL7_ACK, {})
    (message,) = ris.messages
    assert message.startswith(b"MSH|^~\\&|EPVSNODE|")
    assert sr.sop_instance_uid.encode() in message


@pytest.mark.parametrize("code", ["AE", "CE"])
def test_refused_content_is_parked(ris: ScriptedReceiver, sr: StoredObject, code: str) -> None:
    ris.script.append(code)
    assert deliver(ris.destination, sr) == Parked(f"HL7 acknowledgment {code}, error 204")


@pytest.mark.parametrize("code", ["AR", "CR"])
def test_a_receiver_that_cannot_accept_now_is_tried_later(
    ris: ScriptedReceiver, sr: StoredObject, code: str
) -> None:
    ris.script.append(code)
    assert deliver(ris.destination, sr) == Postponed(f"HL7 acknowledgment {code}, error 204")


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (Fault.HANG_UP, "no acknowledgment (ConnectionResetError)"),
        (Fault.FALL_SILENT, "no acknowledgment in time"),
        (Fault.ACCEPT_LATE, "no acknowledgment in time"),
        (Fault.DRIP, "no acknowledgment in time"),
        (Fault.FLOOD, "the response is not an MLLP block"),
        (Fault.BREAK_OFF, "no acknowledgment (ConnectionResetError)"),
        (Fault.ANSWER_GARBAGE, "the response is not an MLLP block"),
        (Fault.ANSWER_ANOTHER, "the acknowledgment is for another message"),
        ("CANARY", "the HL7 acknowledgment has an unknown code"),
    ],
)
def test_without_a_complete_acknowledgment_the_same_bytes_are_sent_again(
    ris: ScriptedReceiver,
    sr: StoredObject,
    response: str | Fault,
    error: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ris.script.append(response)
    with caplog.at_level(logging.DEBUG):
        outcome = deliver(ris.destination, sr)
    assert outcome == Postponed(error)
    assert not caplog.records  # no error of the node itself
    ris.release.set()
    assert deliver(ris.destination, sr) == Delivered(Proof.HL7_ACK, {})
    first, second = ris.messages
    assert first == second


def test_a_refused_connection_postpones_the_delivery(sr: StoredObject) -> None:
    outcome = deliver(Hl7Destination("127.0.0.1", free_port()), sr)
    assert outcome == Postponed("no connection (ConnectionRefusedError)", available=False)


def test_a_report_without_a_result_is_parked_unsent(ris: ScriptedReceiver, tmp_path: Path) -> None:
    empty = stored_object(report_object(ObjectKind.STRUCTURED_REPORT, "2.25.2"), tmp_path)
    assert isinstance(deliver(ris.destination, empty), Parked)
    assert isinstance(deliver(ris.destination), Parked)
    assert not ris.messages


def test_the_doctor_connects_and_sends_nothing(
    ris: ScriptedReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(network_timeout_s=TIMEOUT_S)
    doctor._check_receiver(ris.destination, settings)
    doctor._check_receiver(Hl7Destination("127.0.0.1", free_port()), settings)
    reachable, unreachable = capsys.readouterr().out.splitlines()
    assert '"ok": true' in reachable
    assert '"ok": false' in unreachable
    assert "Check host and port" in unreachable
    assert not ris.messages
