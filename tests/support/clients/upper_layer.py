"""A client of the DICOM upper layer without a library, which can send invalid PDUs too (PS3.8)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

VERIFICATION: Final = "1.2.840.10008.1.1"
MR_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.4"
COMMITMENT: Final = "1.2.840.10008.1.20.1"
IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ = 0x01, 0x02, 0x03
P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 0x04, 0x05, 0x06, 0x07
COMMAND, LAST = 0x01, 0x02
"""Bits of the message control header (PS3.8 annex E.2)."""
C_STORE_RQ, C_FIND_RQ, C_ECHO_RQ, N_EVENT_REPORT_RQ = 0x0001, 0x0020, 0x0030, 0x0100
NO_DATA_SET = 0x0101

Contexts = Mapping[int, tuple[str, Sequence[str]]]
"""Abstract syntax and transfer syntaxes by context id."""
CONTEXTS: Final[Contexts] = {1: (MR_IMAGE, [EXPLICIT]), 3: (VERIFICATION, [EXPLICIT])}

RELEASE: Final = bytes.fromhex("05000000000400000000")
ABORT_BY_USER: Final = bytes.fromhex("07000000000400000000")


class Pdu(NamedTuple):
    """A PDU that the receiver sent."""

    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """A DIMSE response."""

    field: int
    message_id: int
    status: int
    values: Mapping[int, bytes]


def pdu(kind: int, body: bytes) -> bytes:
    """Any PDU."""
    return struct.pack(">BxL", kind, len(body)) + body


def pdv(context_id: int, control: int, data: bytes = b"") -> bytes:
    """One presentation data value item."""
    return struct.pack(">LBB", len(data) + 2, context_id, control) + data


def p_data(*pdvs: bytes) -> bytes:
    """A P-DATA-TF PDU."""
    return pdu(P_DATA, b"".join(pdvs))


def associate_rq(
    contexts: Contexts = CONTEXTS,
    *,
    called_ae: str = "EPVSNODE",
    calling_ae: str = "PACS",
    max_length: int = 16384,
) -> bytes:
    """An A-ASSOCIATE-RQ PDU (PS3.8 section 9.3.2)."""
    items = item(0x10, APPLICATION_CONTEXT.encode())
    for context_id, (abstract_syntax, transfer_syntaxes) in contexts.items():
        syntaxes = b"".join(item(0x40, each.encode()) for each in transfer_syntaxes)
        proposed = item(0x30, abstract_syntax.encode()) + syntaxes
        items += item(0x20, struct.pack(">Bxxx", context_id) + proposed)
    user = item(0x51, struct.pack(">L", max_length)) + item(0x52, b"1.2.3.4")
    items += item(0x50, user)
    titles = called_ae.encode().ljust(16) + calling_ae.encode().ljust(16)
    return pdu(ASSOCIATE_RQ, struct.pack(">Hxx", 1) + titles + bytes(32) + items)


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def element(number: int, value: bytes) -> bytes:
    """An element of a command set: group 0000, implicit VR little endian."""
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value


def command(
    field: int,
    data_set_type: int = NO_DATA_SET,
    *,
    message_id: int = 7,
    sop_class: str = "",
    sop_instance: str = "",
) -> bytes:
    """The command set of a request."""
    body = element(0x0002, sop_class.encode()) if sop_class else b""
    body += element(0x0100, struct.pack("<H", field))
    body += element(0x0110, struct.pack("<H", message_id))
    body += element(0x0800, struct.pack("<H", data_set_type))
    if sop_instance:
        body += element(0x1000, sop_instance.encode())
    return element(0x0000, struct.pack("<L", len(body))) + body


def store_command(sop_instance: str, sop_class: str = MR_IMAGE) -> bytes:
    """The command set of a C-STORE-RQ."""
    return command(C_STORE_RQ, 0x0001, sop_class=sop_class, sop_instance=sop_instance)


def echo(context_id: int = 3, message_id: int = 7) -> bytes:
    """A whole C-ECHO-RQ."""
    encoded = command(C_ECHO_RQ, message_id=message_id, sop_class=VERIFICATION)
    return p_data(pdv(context_id, COMMAND | LAST, encoded))


def store(context_id: int, data_set: bytes, sop_instance: str, *, fragment: int = 16378) -> bytes:
    """A whole C-STORE-RQ, its data set in fragments of `fragment` bytes, one in each PDU."""
    pdus = p_data(pdv(context_id, COMMAND | LAST, store_command(sop_instance)))
    for start in range(0, len(data_set), fragment):
        control = LAST if start + fragment >= len(data_set) else 0
        pdus += p_data(pdv(context_id, control, data_set[start : start + fragment]))
    return pdus


class Peer:
    """One end of a connection to the receiver."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, data: bytes, piece_bytes: int | None = None) -> None:
        """Send any bytes, in pieces of `piece_bytes` if given."""
        size = piece_bytes or max(1, len(data))
        for start in range(0, len(data), size):
            self.connection.sendall(data[start : start + size])

    def receive(self) -> Pdu | None:
        """The next PDU; None if the receiver has closed the connection.

        Raises
        ------
        TimeoutError
        """
        header = self._exactly(6)
        if header is None:
            return None
        kind, length = struct.unpack(">BxL", header)
        body = self._exactly(length)
        return None if body is None else Pdu(kind, body)

    def associate(self, contexts: Contexts = CONTEXTS, **options: str | int) -> dict[int, str]:
        """Associate, and return the transfer syntax of each context that was accepted."""
        self.send(associate_rq(contexts, **options))  # type: ignore[arg-type]
        received = self.receive()
        assert received is not None
        assert received.kind == ASSOCIATE_AC, received.kind
        return accepted_contexts(received.body)

    def receive_message(self) -> Response | Pdu | None:
        """The next DIMSE response or other PDU; None if the connection is closed."""
        encoded = b""
        while (received := self.receive()) is not None and received.kind == P_DATA:
            for control, data in _pdvs(received.body):
                encoded += data
                if control & LAST:
                    return _response(encoded)
        return received

    def response(self) -> Response | None:
        """The next DIMSE response; None if the association ends instead."""
        message = self.receive_message()
        return message if isinstance(message, Response) else None

    def status(self) -> int:
        """Status of the next response."""
        received = self.response()
        assert received is not None, "no response"
        return received.status

    def ended_by(self) -> int | None:
        """Kind of the PDU that ends association and connection; None if there is none."""
        received = self.receive()
        if received is None:
            return None
        assert received.kind in (RELEASE_RP, ABORT), received
        assert self.receive() is None
        return received.kind

    def _exactly(self, n_bytes: int) -> bytes | None:
        received = b""
        while len(received) < n_bytes:
            try:
                part = self.connection.recv(n_bytes - len(received))
            except ConnectionError:
                return None
            if not part:
                return None
            received += part
        return received


@contextmanager
def peer(port: int, timeout_s: float = 10.0, address: str = "127.0.0.1") -> Iterator[Peer]:
    """Connect to a port; the connection is closed afterwards."""
    with socket.create_connection((address, port), timeout=timeout_s) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Peer(connection)


@contextmanager
def associated(
    port: int, contexts: Contexts = CONTEXTS, *, max_length: int = 16384
) -> Iterator[Peer]:
    """Associate with a receiver on this machine; the connection is closed without a release."""
    with peer(port, timeout_s=20) as connected:
        connected.associate(contexts, max_length=max_length)
        yield connected


def _pdvs(body: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(body):
        length, _, control = struct.unpack_from(">LBB", body, position)
        yield control, body[position + 6 : position + 4 + length]
        position += 4 + length


def _response(encoded: bytes) -> Response:
    values: dict[int, bytes] = {}
    position = 0
    while position < len(encoded):
        _, number, length = struct.unpack_from("<HHL", encoded, position)
        values[number] = encoded[position + 8 : position + 8 + length]
        position += 8 + length
    return Response(
        field=int.from_bytes(values[0x0100], "little"),
        message_id=int.from_bytes(values[0x0120], "little"),
        status=int.from_bytes(values[0x0900], "little"),
        values=values,
    )


def accepted_contexts(body: bytes) -> dict[int, str]:
    """Transfer syntax of each context that the body of an A-ASSOCIATE-AC accepts."""
    contexts: dict[int, str] = {}
    position = 68
    while position < len(body):
        kind, length = struct.unpack_from(">BxH", body, position)
        value = body[position + 4 : position + 4 + length]
        if kind == 0x21 and value[2] == 0:
            contexts[value[0]] = value[8:].decode("ascii")
        position += 4 + length
    return contexts
