"""PDUs are read as they were sent, however fragments, reads and the buffer cut them."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.pdu import (
    ConnectionLost,
    End,
    NoRequest,
    PduReader,
    PeerFault,
    command_pdus,
    end_with,
    read_associate_request,
    reject_pdu,
)
from tests.support.clients.upper_layer import (
    ABORT_BY_USER,
    ASSOCIATE_RQ,
    LAST,
    P_DATA,
    RELEASE,
    associate_rq,
    p_data,
    pdu,
    pdv,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Feed:
    """A connection that returns a stream in pieces of any size."""

    def __init__(self, stream: bytes, cuts: random.Random, largest: int) -> None:
        self._stream = memoryview(stream)
        self._cuts = cuts
        self._largest = largest

    def recv_into(self, buffer: memoryview) -> int:
        assert len(buffer) > 0
        size = min(len(buffer), len(self._stream), self._cuts.randint(1, self._largest))
        buffer[:size] = self._stream[:size]
        self._stream = self._stream[size:]
        return size

    def setsockopt(self, *_arguments: object) -> None:
        pass


def reader(stream: bytes, seed: int = 0, largest: int = 10**6) -> PduReader:
    feed = Feed(stream, random.Random(seed), largest)
    return PduReader(cast("socket.socket", feed), pdu_timeout_s=60)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    length=st.sampled_from([0, 1, 5_000, 262_144, 262_133, 700_000]),
    largest_pdv=st.sampled_from([3, 4_000, 131_066, 262_140, 600_000]),
    largest_read=st.sampled_from([7, 1_500, 100_000, 10**6]),
)
def test_fragments_are_reassembled(
    seed: int, length: int, largest_pdv: int, largest_read: int
) -> None:
    cuts = random.Random(seed)
    if largest_pdv < 100 or largest_read < 100:
        length = min(length, 5_000)
    data = cuts.randbytes(length)
    parts, position = [], 0
    while position < length:
        size = cuts.randint(0, largest_pdv)
        parts.append(data[position : position + size])
        position += size
    pdvs = [pdv(5, 0, part) for part in parts] + [pdv(5, LAST)]
    stream = b""
    while pdvs:
        count = cuts.randint(1, 3)
        joined, pdvs = pdvs[:count], pdvs[count:]
        fits = sum(len(part) for part in joined) <= 1024 * 1024
        stream += p_data(*joined) if fits else b"".join(p_data(part) for part in joined)

    pdus = reader(stream + RELEASE, seed, largest_read)
    received, ends = b"", []
    for piece in pdus.pieces():
        assert piece.context_id == 5
        assert not piece.is_command
        received += piece.data
        ends.append(piece.ends_message)

    assert received == data
    assert ends.count(True) == 1
    assert ends[-1]
    assert pdus.ended_by is End.RELEASE


@settings(max_examples=300, deadline=None)
@given(stream=st.binary(max_size=200), header=st.booleans(), seed=st.integers(0, 100))
def test_random_bytes_end_as_a_fault_or_an_end(stream: bytes, header: bool, seed: int) -> None:
    try:
        for _ in reader(pdu(P_DATA, stream) if header else stream, seed, 50).pieces():
            pass
    except (PeerFault, ConnectionLost):
        pass


def test_an_abort_ends_the_reading() -> None:
    pdus = reader(ABORT_BY_USER + p_data(pdv(1, LAST)))

    assert list(pdus.pieces()) == []
    assert pdus.ended_by is End.ABORT


@pytest.mark.parametrize("max_length", [0, 1, 7, 50, 16_384])
def test_a_response_keeps_to_the_maximum_length_of_the_peer(max_length: int) -> None:
    command = bytes(range(200))
    stream = command_pdus(3, command, max_length)

    pieces = [
        (piece.context_id, piece.is_command, bytes(piece.data), piece.ends_message)
        for piece in reader(stream + ABORT_BY_USER).pieces()
    ]

    assert b"".join(data for _, _, data, _ in pieces) == command
    assert {(context, is_command) for context, is_command, _, _ in pieces} == {(3, True)}
    assert [ends for *_, ends in pieces] == [False] * (len(pieces) - 1) + [True]
    if max_length > 6:
        assert max(len(data) for _, _, data, _ in pieces) <= max_length - 6


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection: the peer's and the receiver's."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as peer,
        listening.accept()[0] as connection,
    ):
        yield peer, connection


def test_a_request_is_read_to_its_last_byte_and_no_further(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    peer, connection = pair
    request = associate_rq()

    def send_slowly() -> None:
        for start in range(0, len(request), 50):
            peer.sendall(request[start : start + 50])
            time.sleep(0.001)
        peer.sendall(RELEASE)

    sender = threading.Thread(target=send_slowly)
    sender.start()
    assert read_associate_request(connection, time.monotonic() + 20) == request
    sender.join()
    assert connection.recv(100) == RELEASE


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (ABORT_BY_USER, ""),
        (RELEASE, "no-association-request"),
        (p_data(pdv(1, LAST)), "no-association-request"),
        (pdu(0x2A, b""), "no-association-request"),
        (struct.pack(">BxL", ASSOCIATE_RQ, 0xFFFF_FFF0), "pdu-too-long"),
    ],
)
def test_anything_but_a_request_is_refused_by_its_header(
    pair: tuple[socket.socket, socket.socket], sent: bytes, reason: str
) -> None:
    peer, connection = pair
    peer.sendall(sent)
    with pytest.raises(NoRequest) as caught:
        read_associate_request(connection, time.monotonic() + 20)
    assert caught.value.reason == reason


def test_a_request_has_one_deadline_for_all_of_its_bytes(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    peer, connection = pair
    stopped = threading.Event()

    def drip() -> None:
        for byte in associate_rq():
            if stopped.wait(0.05):
                return
            peer.sendall(bytes([byte]))

    dripping = threading.Thread(target=drip)
    dripping.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        read_associate_request(connection, began + 0.3)
    assert time.monotonic() - began < 5
    stopped.set()
    dripping.join()


def test_the_last_pdu_reaches_a_peer_that_is_still_sending(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    peer, connection = pair
    peer.sendall(bytes(50_000))
    ending = threading.Thread(target=end_with, args=(connection, reject_pdu(1, 1, 3)))
    ending.start()
    assert peer.recv(100) == bytes.fromhex("03000000000400010103")
    assert peer.recv(100) == b""
    peer.close()
    ending.join(20)
