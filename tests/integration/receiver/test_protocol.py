"""Upper layer protocol and DIMSE byte by byte: valid fragments are reassembled, others aborted."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import psutil
import pytest
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import EnhancedMRImageStorage

from receiver.status import Status
from tests.integration.receiver.test_faults import encoded_image
from tests.support.clients.scu import data_set_of, dcmtk
from tests.support.clients.upper_layer import (
    ABORT,
    ABORT_BY_USER,
    C_FIND_RQ,
    C_STORE_RQ,
    COMMAND,
    COMMITMENT,
    CONTEXTS,
    EXPLICIT,
    LAST,
    MR_IMAGE,
    N_EVENT_REPORT_RQ,
    P_DATA,
    RELEASE,
    RELEASE_RP,
    VERIFICATION,
    associate_rq,
    associated,
    command,
    echo,
    p_data,
    pdu,
    pdv,
    store_command,
)
from tests.support.clients.upper_layer import peer as connected
from tests.support.servers.receiver import ReceiverProcess, run_receiver, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA, UID = encoded_image(1, size=64)
STORE = store_command(UID)


def fragments(content: bytes, control: int, size: int, context_id: int = 1) -> list[bytes]:
    """`content` as PDVs of `size` bytes."""
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    return [
        pdv(context_id, control | (LAST if number == len(parts) else 0), part)
        for number, part in enumerate(parts, 1)
    ]


def message(size: int) -> list[bytes]:
    return fragments(STORE, COMMAND, size) + fragments(DATA, 0, size)


LEGAL = {
    "one PDV a PDU": b"".join(p_data(part) for part in message(4096)),
    "all in one PDU": p_data(*message(4096)),
    "one-byte fragments in one PDU": p_data(*message(1)),
    "one-byte fragments, a PDU each": b"".join(p_data(part) for part in message(1)),
    "command and data set whole": p_data(pdv(1, COMMAND | LAST, STORE))
    + p_data(pdv(1, LAST, DATA)),
    "empty fragments between and last": p_data(pdv(1, COMMAND), pdv(1, COMMAND, STORE))
    + p_data(pdv(1, COMMAND | LAST), pdv(1, 0), pdv(1, 0, DATA), pdv(1, 0))
    + p_data(pdv(1, LAST)),
}


@pytest.mark.parametrize("name", LEGAL)
def test_every_valid_fragmentation_gives_the_same_instance(
    receiver: ReceiverProcess, name: str
) -> None:
    with associated(receiver.port) as peer:
        peer.send(LEGAL[name])
        assert peer.status() == Status.SUCCESS
        peer.send(RELEASE)
        assert peer.ended_by() == RELEASE_RP

    (path,) = receiver.files()
    assert data_set_of(path) == DATA
    assert len(receiver.instances()) == 1


def test_messages_of_several_contexts_follow_each_other_in_one_stream(
    receiver: ReceiverProcess,
) -> None:
    """A second C-STORE and a C-ECHO before the first response, in pieces of odd length."""
    other = encoded_image(2)
    stream = (
        p_data(*message(1000))
        + echo()
        + p_data(pdv(1, COMMAND | LAST, store_command(other[1])), pdv(1, LAST, other[0]))
    )
    with associated(receiver.port) as peer:
        peer.send(stream, piece_bytes=777)
        assert [peer.status() for _ in range(3)] == [Status.SUCCESS] * 3
        peer.send(RELEASE)
        assert peer.ended_by() == RELEASE_RP
    assert len(receiver.files()) == len(receiver.instances()) == 2


def test_a_response_repeats_the_request_within_the_maximum_length(
    receiver: ReceiverProcess,
) -> None:
    with associated(receiver.port, max_length=64) as peer:
        peer.send(p_data(*message(50)))
        answer = peer.response()
        assert answer is not None
        elements = answer.values

    assert elements[0x0002].rstrip(b"\0").decode() == MR_IMAGE
    assert elements[0x0100] == struct.pack("<H", 0x8001)
    assert elements[0x0120] == struct.pack("<H", 7)
    assert elements[0x0800] == struct.pack("<H", 0x0101)
    assert elements[0x1000].rstrip(b"\0").decode() == UID
    length = struct.unpack("<L", elements[0x0000])[0]
    assert length == sum(8 + len(value) for number, value in elements.items() if number)


@pytest.fixture(scope="module")
def shared_strict_receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    """A receiver with a short timeout and a low limit on the length of instances."""
    folder = tmp_path_factory.mktemp("strict")
    with run_receiver(folder, network_timeout_s="2", max_instance_mb="1") as process:
        yield process


@pytest.fixture
def strict_receiver(
    shared_strict_receiver: ReceiverProcess, sqlite_template: Path
) -> ReceiverProcess:
    shared_strict_receiver.forget(sqlite_template)
    return shared_strict_receiver


def test_unsupported_requests_get_a_status(strict_receiver: ReceiverProcess) -> None:
    store_nothing = command(C_STORE_RQ, sop_class=MR_IMAGE, sop_instance=UID)
    wrong_context = command(C_STORE_RQ, 1, sop_class=VERIFICATION, sop_instance=UID)
    cases = [
        (p_data(pdv(1, COMMAND | LAST, command(C_FIND_RQ, 1)), pdv(1, LAST, DATA)), 0x0211),
        (p_data(pdv(1, COMMAND | LAST, command(N_EVENT_REPORT_RQ))), 0x0211),
        (p_data(pdv(3, COMMAND | LAST, wrong_context), pdv(3, LAST, DATA)), 0x0211),
        (p_data(pdv(1, COMMAND | LAST, store_nothing)), Status.UID_MISSING),
        (p_data(pdv(1, COMMAND | LAST, command(0x0FFF))) + echo(), 0x0000),  # C-CANCEL: no response
        (echo(1), 0x0000),
    ]
    with associated(strict_receiver.port) as peer:
        for request, status in cases:
            peer.send(request)
            assert peer.status() == status
        peer.send(p_data(*message(1000)))
        assert peer.status() == Status.SUCCESS
    assert len(strict_receiver.files()) == 1


def test_a_commitment_report_is_taken(receiver: ReceiverProcess) -> None:
    report = Dataset()
    report.TransactionUID = "1.2.3"
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, report)
    request = command(
        N_EVENT_REPORT_RQ, 1, sop_class=COMMITMENT, sop_instance="1.2.840.10008.1.20.1.1"
    )
    event_type = struct.pack("<HHLH", 0, 0x1002, 2, 1)
    request = struct.pack("<HHLL", 0, 0, 4, len(request) - 12 + 10) + request[12:] + event_type
    with associated(receiver.port, {1: (COMMITMENT, [EXPLICIT])}) as peer:
        peer.send(p_data(*fragments(request, COMMAND, 60), pdv(1, LAST, buffer.getvalue())))
        answer = peer.response()
        assert answer is not None
        elements = answer.values

    assert elements[0x0900] == struct.pack("<H", 0x0115)  # belongs to no request of this node
    assert elements[0x0100] == struct.pack("<H", 0x8100)
    assert elements[0x1002] == struct.pack("<H", 1)


ILLEGAL = {
    "PDU type unknown": pdu(0x2A, b"1234"),
    "A-ASSOCIATE-RQ again": associate_rq(),
    "A-RELEASE-RP unasked": pdu(RELEASE_RP, bytes(4)),
    "PDU without PDV": pdu(P_DATA, b""),
    "PDU ends in a PDV header": pdu(P_DATA, b"\0\0\0"),
    "PDV of length 0": pdu(P_DATA, bytes(4) + b"\x01\x03"),
    "PDV of length 1": pdu(P_DATA, b"\0\0\0\x01\x01\x03"),
    "PDV longer than its PDU": pdu(P_DATA, struct.pack(">LBB", 500, 1, 3) + bytes(98)),
    "context never accepted": p_data(pdv(9, COMMAND | LAST, STORE)),
    "data set without command": p_data(pdv(1, LAST, DATA)),
    "command inside a data set": p_data(pdv(1, COMMAND | LAST, STORE), pdv(1, 0, DATA[:50]))
    + p_data(pdv(1, COMMAND | LAST, STORE)),
    "data set over another context": p_data(pdv(1, COMMAND | LAST, STORE), pdv(3, LAST, DATA)),
    "command cut off": p_data(pdv(1, COMMAND | LAST, STORE[:-3])),
    "command of another group": p_data(pdv(1, COMMAND | LAST, b"\x08\0\0\0\0\0\0\0")),
    "command without end": p_data(pdv(1, COMMAND, bytes(20_000))),
    "command empty": p_data(pdv(1, COMMAND | LAST)),
    "response without request": p_data(pdv(1, COMMAND | LAST, command(0x8001))),
    "A-ABORT of a wrong length": pdu(ABORT, b""),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_protocol_violations_are_aborted_and_leave_nothing(
    strict_receiver: ReceiverProcess, name: str
) -> None:
    with associated(strict_receiver.port) as peer:
        peer.send(ILLEGAL[name])
        assert peer.ended_by() == ABORT
    assert strict_receiver.files() == set()
    assert dcmtk("echoscu", strict_receiver.port).returncode == 0


@pytest.mark.parametrize("is_associated", [True, False])
def test_a_pdu_over_the_cap_is_refused_by_its_header(
    receiver: ReceiverProcess, is_associated: bool
) -> None:
    header = struct.pack(">BxL", P_DATA if is_associated else 0x01, 0xFFFF_FFF0)
    connect = associated if is_associated else connected
    with connect(receiver.port) as peer:
        peer.send(header)
        assert peer.ended_by() == ABORT


@pytest.mark.parametrize("cut", ["release", "abort", "close"])
def test_an_end_inside_a_data_set_leaves_nothing(receiver: ReceiverProcess, cut: str) -> None:
    with associated(receiver.port) as peer:
        peer.send(p_data(pdv(1, COMMAND | LAST, STORE), pdv(1, 0, DATA[:5000])))
        if cut != "close":
            peer.send(RELEASE if cut == "release" else ABORT_BY_USER)
            peer.ended_by()

    wait_until(lambda: not receiver.files())
    assert receiver.instances() == []


def test_an_instance_over_the_cap_is_drained_and_refused(strict_receiver: ReceiverProcess) -> None:
    zeros = [pdv(1, 0, bytes(100_000))] * 11
    with associated(strict_receiver.port) as peer:
        peer.send(p_data(pdv(1, COMMAND | LAST, STORE)))
        peer.send(b"".join(p_data(part) for part in zeros) + p_data(pdv(1, LAST)))
        assert peer.status() == Status.TOO_LARGE
        assert strict_receiver.files() == set()
        peer.send(p_data(*message(1000)))
        assert peer.status() == Status.SUCCESS


def test_memory_does_not_grow_with_the_length_of_an_instance(tmp_path: Path) -> None:
    part = p_data(pdv(1, 0, bytes(100_000)))
    with (
        run_receiver(tmp_path) as receiver,
        associated(receiver.port) as peer,
    ):
        peer.send(p_data(*message(4096)))
        assert peer.status() == Status.SUCCESS
        memory = psutil.Process(receiver.process.pid).memory_info
        before = memory().rss
        other = store_command("1.2.3.1.2")
        padding = struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 100_000_000)
        data = encoded_image(2)[0] + padding
        peer.send(p_data(pdv(1, COMMAND | LAST, other), pdv(1, 0, data)))
        for _ in range(1000):
            peer.send(part)
        grown = memory().rss - before
        peer.send(p_data(pdv(1, LAST)))
        assert peer.status() == Status.SUCCESS
    assert grown < 8_000_000, f"{grown} bytes for an instance of 100 MB"


@pytest.mark.parametrize("drip", ["inside a PDU", "a PDU each", "nothing"])
def test_slow_and_silent_senders_are_aborted(strict_receiver: ReceiverProcess, drip: str) -> None:
    one = p_data(pdv(1, 0, b"\x08"))
    stream = struct.pack(">BxL", P_DATA, 1000) + pdv(1, 0, bytes(994))
    with associated(strict_receiver.port) as peer:
        peer.send(p_data(pdv(1, COMMAND | LAST, STORE)))
        peer.connection.settimeout(0.4 if drip != "nothing" else 20)
        for number in range(40):
            try:
                received = peer.connection.recv(10)
            except TimeoutError:
                peer.connection.sendall(
                    one if drip == "a PDU each" else stream[number : number + 1]
                )
            else:
                break
        else:
            pytest.fail("still served")
        assert received[:1] == bytes([ABORT])
    wait_until(lambda: not strict_receiver.files())


def test_headers_longer_than_what_is_kept_in_memory_are_read(receiver: ReceiverProcess) -> None:
    position = DATA.index(b"\x20\0\x0d\0UI")
    private = struct.pack("<HH2sHL", 0x0019, 0x1001, b"OB", 0, 100_000) + bytes(100_000)
    data = DATA[:position] + private + DATA[position:]
    with associated(receiver.port) as peer:
        peer.send(p_data(pdv(1, COMMAND | LAST, STORE), pdv(1, LAST, data)))
        assert peer.status() == Status.SUCCESS
    (row,) = receiver.instances()
    assert row.study_uid == "1.2.3"


def test_two_contexts_of_different_classes(receiver: ReceiverProcess) -> None:
    contexts = {**CONTEXTS, 5: (EnhancedMRImageStorage, [EXPLICIT])}
    with associated(receiver.port, contexts) as peer:
        peer.send(p_data(*(fragments(STORE, COMMAND, 99, 5) + fragments(DATA, 0, 999, 5))))
        assert peer.status() == Status.SOP_CLASS_NOT_SUPPORTED
        peer.send(p_data(*message(1000)))
        assert peer.status() == Status.SUCCESS


def test_repeated_aborts_are_one_audit_event(tmp_path: Path) -> None:
    with run_receiver(tmp_path) as receiver:
        for _ in range(3):
            with associated(receiver.port) as peer:
                peer.send(pdu(0x2A, b"1234"))
                assert peer.ended_by() == ABORT
        (row,) = receiver.wait_for_audit("association-aborted")
        assert row.detail["reason"] == "unrecognized-pdu"
        assert (row.detail["calling_ae"], row.detail["peer_address"]) == ("PACS", "127.0.0.1")
