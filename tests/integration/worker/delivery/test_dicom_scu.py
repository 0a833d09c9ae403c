"""The SCU against storage SCPs that respond in every way, or not at all."""

from __future__ import annotations

import hashlib
import socket
from typing import TYPE_CHECKING

import pytest
from pynetdicom import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made on import

from core.destinations import DicomDestination
from core.errors import Unavailable
from core.results import ObjectKind
from core.settings import load_settings
from db.delivery.claims import DeliveryClaim, StoredObject
from db.enums import Proof
from tests.support.builders.made_study import encoded_data_set, report_object
from tests.support.servers.destination import Fault, ScriptedDestination, scripted_destination
from tests.support.servers.ports import free_port
from worker.delivery.attempt import decide
from worker.delivery.dicom_scu import DicomScu
from worker.delivery.outcomes import Delivered, Outcome, Parked, Postponed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SC, SR = "2.25.1", "2.25.2"


def keep(folder: Path, kind: ObjectKind, uid: str, *, padding: int = 0) -> StoredObject:
    made = report_object(kind, uid, padding=padding)
    path = folder / f"{uid}.dcm"
    path.write_bytes(made.content)
    return StoredObject(
        kind=kind,
        sop_class_uid=made.sop_class_uid,
        sop_instance_uid=uid,
        transfer_syntax_uid=made.transfer_syntax_uid,
        path=path,
        sha256=hashlib.sha256(made.content).hexdigest(),
    )


@pytest.fixture
def objects(tmp_path: Path) -> list[StoredObject]:
    return [
        keep(tmp_path, ObjectKind.SECONDARY_CAPTURE, SC),
        keep(tmp_path, ObjectKind.STRUCTURED_REPORT, SR),
    ]


@pytest.fixture
def pacs() -> Iterator[ScriptedDestination]:
    with scripted_destination() as scripted:
        yield scripted


def deliver(
    pacs: ScriptedDestination, objects: list[StoredObject], *, trust_status: bool = True
) -> Outcome:
    name = pacs.destination.name
    settings = load_settings(
        destinations=name, network_timeout_s=1.0, trust_store_status=trust_status
    )
    return decide(DeliveryClaim("d", "r", name, 1, 1, tuple(objects), stored=False), settings)


def test_the_stored_bytes_arrive_unchanged(
    pacs: ScriptedDestination, objects: list[StoredObject]
) -> None:
    assert deliver(pacs, objects) == Delivered(Proof.STORE_STATUS, {SC: 0, SR: 0})
    assert pacs.arrivals == [SC, SR]
    for item in objects:
        assert pacs.data_sets[item.sop_instance_uid] == encoded_data_set(item.path.read_bytes())


def test_a_warning_means_stored(pacs: ScriptedDestination, objects: list[StoredObject]) -> None:
    pacs.script.extend([0xB000, 0x0000])
    assert deliver(pacs, objects) == Delivered(Proof.STORE_STATUS, {SC: 0xB000, SR: 0})


def test_out_of_resources_postpones_this_and_the_remaining_objects(
    pacs: ScriptedDestination, objects: list[StoredObject]
) -> None:
    pacs.script.append(0xA700)
    outcome = deliver(pacs, objects)
    assert isinstance(outcome, Postponed)
    assert outcome.status == 0xA700
    assert not outcome.available  # the next delivery would get the same response
    assert pacs.arrivals == [SC]


@pytest.mark.parametrize("status", [0xA900, 0xC000])
def test_a_refusal_parks_the_delivery(
    pacs: ScriptedDestination, objects: list[StoredObject], status: int
) -> None:
    pacs.script.append(status)
    outcome = deliver(pacs, objects)
    assert isinstance(outcome, Parked)
    assert outcome.status == status


@pytest.mark.parametrize("fault", [Fault.STORE_AND_HANG_UP, Fault.STORE_AND_FALL_SILENT])
def test_a_query_decides_whether_an_object_without_response_was_stored(
    pacs: ScriptedDestination, objects: list[StoredObject], fault: Fault
) -> None:
    pacs.script.append(fault)
    assert deliver(pacs, objects) == Delivered(Proof.C_FIND, {SR: 0})
    assert pacs.arrivals == [SC, SR]  # an object that the query lists is not sent again


def test_an_object_is_sent_again_after_the_peer_hung_up(
    pacs: ScriptedDestination, objects: list[StoredObject]
) -> None:
    pacs.script.append(Fault.HANG_UP)
    assert isinstance(deliver(pacs, objects), Postponed)
    assert isinstance(deliver(pacs, objects), Delivered)
    assert pacs.arrivals == [SC, SC, SR]


def test_a_peer_that_stops_reading_does_not_block_the_worker(
    pacs: ScriptedDestination, tmp_path: Path
) -> None:
    large = keep(tmp_path, ObjectKind.SECONDARY_CAPTURE, SC, padding=32 * 1024**2)
    pacs.script.append(Fault.STOP_READING)
    assert isinstance(deliver(pacs, [large]), Postponed)


def test_a_query_is_the_proof_where_the_status_is_not_trusted(
    pacs: ScriptedDestination, objects: list[StoredObject]
) -> None:
    assert deliver(pacs, objects, trust_status=False) == Delivered(Proof.C_FIND, {SC: 0, SR: 0})
    del pacs.data_sets[SC]  # stored with success, and lost
    remaining = [item for item in objects if item.sop_instance_uid == SC]
    user = DicomScu(pacs.destination, calling_ae="EPVSNODE", timeout_s=1.0)
    assert user.find(remaining) == set()


def test_no_response_from_a_peer_without_queries_postpones(objects: list[StoredObject]) -> None:
    with scripted_destination(answers_queries=False) as pacs:
        pacs.script.append(Fault.STORE_AND_HANG_UP)
        assert isinstance(deliver(pacs, objects), Postponed)
        assert isinstance(deliver(pacs, objects), Delivered)


def test_a_class_that_is_not_accepted_parks_the_delivery(objects: list[StoredObject]) -> None:
    with scripted_destination(classes=[objects[0].sop_class_uid]) as pacs:
        outcome = deliver(pacs, objects)
        assert isinstance(outcome, Parked)
        assert "accepts no Comprehensive SR Storage" in outcome.error
        assert pacs.arrivals == [SC]
    with scripted_destination(classes=["1.2.840.10008.5.1.4.1.1.2"]) as pacs:
        assert isinstance(deliver(pacs, objects), Parked)  # not one context is accepted
        assert pacs.arrivals == []


@pytest.mark.parametrize("ae_title", ["PACS", "OTHER"])
def test_no_association(ae_title: str, pacs: ScriptedDestination) -> None:
    """Nothing listens there, or the called AE title is unknown."""
    port = free_port() if ae_title == "PACS" else pacs.destination.port
    user = DicomScu(
        DicomDestination(ae_title, "127.0.0.1", port), calling_ae="EPVSNODE", timeout_s=1.0
    )
    with pytest.raises(Unavailable):
        user.echo()


def test_echo(pacs: ScriptedDestination) -> None:
    DicomScu(pacs.destination, calling_ae="EPVSNODE", timeout_s=1.0).echo()


def test_no_message_waits_for_a_delayed_tcp_acknowledgement(pacs: ScriptedDestination) -> None:
    """A command and its data set are two writes, so each would cost 40 ms (RFC 1122 4.2.3.2)."""
    user = DicomScu(pacs.destination, calling_ae="EPVSNODE", timeout_s=5)
    with user._associate([build_context(Verification)]) as assoc:
        transport = assoc.dul.socket
        assert transport is not None
        assert transport.socket is not None
        assert transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
