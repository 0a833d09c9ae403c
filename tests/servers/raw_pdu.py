"""A peer that sends any bytes whatever: PDUs made by hand, sent over a plain socket."""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from tests.servers.receiver import AE_TITLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 0x04, 0x05, 0x06, 0x07
C_STORE_RQ, C_FIND_RQ, C_ECHO_RQ, N_EVENT_REPORT_RQ = 0x0001, 0x0020, 0x0030, 0x0100
COMMAND, LAST = 0x01, 0x02
NO_DATA_SET = 0x0101
VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"
CONTEXTS = ((MRImageStorage, ExplicitVRLittleEndian), (VERIFICATION, ExplicitVRLittleEndian))


def pdu(pdu_type: int, content: bytes) -> bytes:
    return struct.pack(">BxL", pdu_type, len(content)) + content


def pdv(context_id: int, control: int, content: bytes = b"") -> bytes:
    return struct.pack(">LBB", len(content) + 2, context_id, control) + content


def p_data(*pdvs: bytes) -> bytes:
    return pdu(P_DATA, b"".join(pdvs))


def release_rq() -> bytes:
    return pdu(RELEASE_RQ, bytes(4))


def abort() -> bytes:
    return pdu(ABORT, bytes(4))


def command(field: int, data_set_type: int = NO_DATA_SET, **elements: str) -> bytes:
    """A request with Message ID 7; `elements` are ``sop_class`` and ``sop_instance``."""
    numbers = {"sop_class": 0x0002, "sop_instance": 0x1000}
    values = {
        0x0100: struct.pack("<H", field),
        0x0110: struct.pack("<H", 7),
        0x0800: struct.pack("<H", data_set_type),
    }
    for name, text in elements.items():
        values[numbers[name]] = text.encode() + b"\0" * (len(text) % 2)
    body = b"".join(
        struct.pack("<HHL", 0, number, len(values[number])) + values[number]
        for number in sorted(values)
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def store_command(sop_instance: str, sop_class: str = MRImageStorage) -> bytes:
    return command(C_STORE_RQ, 0x0001, sop_class=sop_class, sop_instance=sop_instance)


def echo(context_id: int = 3) -> bytes:
    request = command(C_ECHO_RQ, sop_class=VERIFICATION)
    return p_data(pdv(context_id, COMMAND | LAST, request))


def associate_rq(
    contexts: Sequence[tuple[str, str]] = CONTEXTS, max_length: int = 16_384, called: str = AE_TITLE
) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 section 9.3.2) that proposes contexts 1, 3, 5, …"""
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, transfer) in enumerate(contexts):
        syntaxes = _item(0x30, abstract.encode()) + _item(0x40, transfer.encode())
        items += _item(0x20, bytes([2 * number + 1, 0, 0, 0]) + syntaxes)
    user = _item(0x51, struct.pack(">L", max_length)) + _item(0x52, b"1.2.3.4")
    items += _item(0x50, user)
    titles = called.ljust(16).encode() + b"PACS".ljust(16)
    return pdu(0x01, struct.pack(">Hxx", 1) + titles + bytes(32) + items)


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


@dataclass
class RawPeer:
    """One connection to a receiver."""

    connection: socket.socket

    def send(self, data: bytes, piece_bytes: int | None = None) -> None:
        """Send, in writes of `piece_bytes` where that is given."""
        for start in range(0, len(data), piece_bytes or len(data)):
            self.connection.sendall(data[start : start + (piece_bytes or len(data))])

    def receive(self) -> tuple[int, bytes] | None:
        """Type and content of the next PDU, or None where the connection has ended."""
        header = self._exactly(6)
        if header is None:
            return None
        pdu_type, length = struct.unpack(">BxL", header)
        content = self._exactly(length)
        return None if content is None else (pdu_type, content)

    def response(self) -> dict[int, bytes]:
        """Elements of the next response, which may come in several fragments."""
        encoded, control = b"", 0
        while not control & LAST:
            received = self.receive()
            assert received is not None, "connection ended"
            pdu_type, content = received
            assert pdu_type == P_DATA, f"PDU type {pdu_type}: {content.hex()}"
            control = content[5]
            encoded += content[6:]
        elements: dict[int, bytes] = {}
        while encoded:
            _, number, length = struct.unpack_from("<HHL", encoded)
            elements[number] = encoded[8 : 8 + length]
            encoded = encoded[8 + length :]
        return elements

    def status(self) -> int:
        return int.from_bytes(self.response()[0x0900], "little")

    def ended_by(self) -> int | None:
        """Type of the PDU that ends the association; None where there is none."""
        received = self.receive()
        if received is None:
            return None
        assert received[0] in (RELEASE_RP, ABORT), received
        assert self.receive() is None
        return received[0]

    def _exactly(self, n_bytes: int) -> bytes | None:
        received = b""
        while len(received) < n_bytes:
            try:
                part = self.connection.recv(n_bytes - len(received))
            except ConnectionResetError:
                part = b""
            if not part:
                return None
            received += part
        return received


@contextmanager
def raw_connection(port: int) -> Iterator[RawPeer]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield RawPeer(connection)


@contextmanager
def raw_association(
    port: int, contexts: Sequence[tuple[str, str]] = CONTEXTS, max_length: int = 16_384
) -> Iterator[RawPeer]:
    """An established association; it is simply left at the end."""
    with raw_connection(port) as peer:
        peer.send(associate_rq(contexts, max_length))
        received = peer.receive()
        assert received is not None
        assert received[0] == 0x02
        yield peer
