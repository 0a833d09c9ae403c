"""Upper layer PDUs on a socket: the first one of a connection, then those of an association.

No memory is reserved for an announced length. A P-DATA-TF of any length passes through one reused
buffer piece by piece, and a PDU longer than `MAX_PDU_BYTES` is refused by its header alone. Layouts
follow PS3.8 section 9.3, the order of fragments PS3.8 annex E.
"""

from __future__ import annotations

import socket
import struct
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PDU_BYTES: Final = 1024 * 1024
"""Longest PDU that is read; a longer one ends the association.

More than the maximum length announced to peers: an A-ASSOCIATE-RQ with 128 contexts may take
200 KiB, and some senders exceed the maximum length they were given.
"""
_BUFFER_BYTES: Final = 128 * 1024

_PDU_HEADER: Final = struct.Struct(">BxL")
_PDV_HEADER: Final = struct.Struct(">LBB")
_P_DATA_HEADER: Final = struct.Struct(">BxLLBB")
_PDV_OVERHEAD: Final = 6
"""Item length, context id and message control header of a PDV."""

_ASSOCIATE_RQ: Final = 0x01
_ASSOCIATE_RJ: Final = 0x03
_P_DATA: Final = 0x04
_RELEASE_RQ: Final = 0x05
_ABORT: Final = 0x07
_KNOWN_TYPES: Final = range(0x01, 0x08)
_FIXED_LENGTH: Final = 4
"""Length of A-ASSOCIATE-RJ, A-RELEASE-RQ and A-ABORT (PS3.8 tables 9-21, 9-24 and 9-26)."""

_COMMAND_BIT: Final = 0x01
_LAST_BIT: Final = 0x02

RELEASE_RP: Final = bytes.fromhex("06000000000400000000")
USER_ABORT: Final = bytes.fromhex("07000000000400000000")
"""A-ABORT with the service user as source, which gives no reason: the answer to anything but an
A-ASSOCIATE-RQ before an association exists (PS3.8 table 9-10, action AA-1)."""
_CLOSE_TIMEOUT_S: Final = 1.0

_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # Linux only


class AbortReason(IntEnum):
    """Why the service provider aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class PeerFault(Exception):
    """The peer broke the protocol or was too slow; the association must be aborted.

    Parameters
    ----------
    reason : AbortReason
        For the A-ABORT.
    message : str
        For the log; contains no value that the peer sent.
    code : str, optional
        Reason for the audit trail; by default that of the A-ABORT.
    """

    def __init__(self, reason: AbortReason, message: str, code: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code or reason.name.lower().replace("_", "-")


class ConnectionLost(Exception):
    """The connection ended without release or abort."""


class NoRequest(Exception):
    """A connection did not begin with an acceptable A-ASSOCIATE-RQ.

    Parameters
    ----------
    reason : str
        For the audit trail; empty if the peer sent an A-ABORT, which needs no answer.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class End(IntEnum):
    """How the peer ended the association."""

    RELEASE = _RELEASE_RQ
    ABORT = _ABORT


class Piece(NamedTuple):
    """A part of a fragment: as much of it as has arrived."""

    context_id: int
    is_command: bool
    data: memoryview
    """Valid until the next piece is requested; may be empty."""
    ends_message: bool
    """Whether the command or the data set ends here."""


def abort_pdu(reason: AbortReason) -> bytes:
    """A-ABORT of the service provider (PS3.8 section 9.3.8)."""
    return struct.pack(">BxLxxBB", _ABORT, _FIXED_LENGTH, 2, reason)


def reject_pdu(result: int, source: int, diagnostic: int) -> bytes:
    """A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""
    return struct.pack(">BxLxBBB", _ASSOCIATE_RJ, _FIXED_LENGTH, result, source, diagnostic)


def command_pdus(context_id: int, command: bytes, max_length: int) -> bytes:
    """P-DATA-TF PDUs that carry one command set.

    Parameters
    ----------
    context_id : int
    command : bytes
        Encoded command set.
    max_length : int
        Maximum length that the peer receives, in bytes; 0 is unlimited (PS3.8 annex D.1).
    """
    limit = max(1, max_length - _PDV_OVERHEAD) if max_length else len(command)
    pdus = bytearray()
    for start in range(0, len(command), limit):
        part = command[start : start + limit]
        control = _COMMAND_BIT | (_LAST_BIT if start + limit >= len(command) else 0)
        length = len(part) + 2
        pdus += _P_DATA_HEADER.pack(_P_DATA, length + 4, length, context_id, control)
        pdus += part
    return bytes(pdus)


def acknowledge_at_once(connection: socket.socket) -> None:
    """Acknowledge what was just read without the kernel's delay.

    A sender that leaves Nagle's algorithm on holds back the end of each PDU until the rest is
    acknowledged; with the usual delay of 40 ms it sends 25 images a second. Linux clears the option
    on every read, so it is set after every read; elsewhere this does nothing.
    """
    if _QUICKACK is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def read_associate_request(connection: socket.socket, deadline: float) -> bytes:
    """Read the first PDU of a connection, which must be an A-ASSOCIATE-RQ.

    Parameters
    ----------
    connection : socket.socket
    deadline : float
        In the time of `time.monotonic`; plays the part of the ARTIM timer (PS3.8 section 9.1.5).

    Raises
    ------
    NoRequest
        Another PDU or one that is too long.
    TimeoutError
        The PDU is not complete at the deadline.
    ConnectionLost
    """
    pdu_type, length = _PDU_HEADER.unpack(header := _read_exactly(connection, 6, deadline))
    if pdu_type == _ABORT:
        raise NoRequest("")
    if pdu_type != _ASSOCIATE_RQ:
        raise NoRequest("no-association-request")
    if length > MAX_PDU_BYTES:
        raise NoRequest("pdu-too-long")
    return header + _read_exactly(connection, length, deadline)


def _read_exactly(connection: socket.socket, n_bytes: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < n_bytes:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        try:
            part = connection.recv(min(n_bytes - len(received), _BUFFER_BYTES))
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLost(f"errno={error.errno}") from error
        if not part:
            raise ConnectionLost("closed by the peer")
        received += part
        acknowledge_at_once(connection)
    return bytes(received)


def end_with(connection: socket.socket, pdu: bytes) -> None:
    """Send a last PDU and give the peer a moment to read it and close (PS3.8 state Sta13).

    Closing while data of the peer is unread would reset the connection, and the peer might lose
    the PDU.
    """
    try:
        connection.settimeout(_CLOSE_TIMEOUT_S)
        connection.sendall(pdu)
        connection.shutdown(socket.SHUT_WR)
        end = time.monotonic() + _CLOSE_TIMEOUT_S
        while time.monotonic() < end and connection.recv(65536):
            pass
    except OSError:  # the peer has closed already
        pass


class PduReader:
    """Reads what a peer sends on an established association.

    Parameters
    ----------
    connection : socket.socket
        Blocking, with a receive timeout of its own (SO_RCVTIMEO) between two bytes.
    pdu_timeout_s : float
        Longest time from the first byte of a PDU to its last. Without it, a peer that sends one
        byte at a time would never reach the receive timeout.
    """

    def __init__(self, connection: socket.socket, pdu_timeout_s: float) -> None:
        self._connection = connection
        self._pdu_timeout_s = pdu_timeout_s
        self._view = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0  # the part of the buffer that is read but not yet consumed
        self._deadline = 0.0

    def pieces(self) -> Iterator[Piece]:
        """Fragments in order until the peer releases or aborts; `ended_by` then holds which.

        Raises
        ------
        PeerFault
            A PDU or PDV is against PS3.8, too long, or too slow.
        ConnectionLost
        """
        while (length := self._begin_pdu()) is not None:
            if length == 0:
                raise PeerFault(AbortReason.INVALID_PARAMETER, "P-DATA-TF without a PDV")
            while length:
                pdv_length, context_id, control = self._begin_pdv(length)
                length -= 4 + pdv_length
                yield from self._pdv(pdv_length - 2, context_id, control)

    ended_by: End
    """How the peer ended the association; set once `pieces` is exhausted."""

    def _begin_pdu(self) -> int | None:
        """Length of the next P-DATA-TF; None if the association ends instead."""
        self._deadline = float("inf")  # until its first byte the association is idle, not slow
        if self._start == self._end:
            self._refill()
        self._deadline = time.monotonic() + self._pdu_timeout_s
        self._gather(_PDU_HEADER.size)
        pdu_type, length = _PDU_HEADER.unpack_from(self._view, self._start)
        self._start += _PDU_HEADER.size
        if pdu_type == _P_DATA:
            if length > MAX_PDU_BYTES:
                raise PeerFault(AbortReason.INVALID_PARAMETER, f"PDU of {length} bytes announced")
            return int(length)
        if pdu_type not in _KNOWN_TYPES:
            raise PeerFault(AbortReason.UNRECOGNIZED_PDU, f"PDU type 0x{pdu_type:02X}")
        if pdu_type not in (_RELEASE_RQ, _ABORT):
            raise PeerFault(AbortReason.UNEXPECTED_PDU, f"PDU type 0x{pdu_type:02X}")
        if length != _FIXED_LENGTH:
            raise PeerFault(AbortReason.INVALID_PARAMETER, f"PDU type 0x{pdu_type:02X} is {length}")
        self._gather(length)
        self._start += length
        self.ended_by = End(pdu_type)
        return None

    def _begin_pdv(self, pdu_left: int) -> tuple[int, int, int]:
        if pdu_left < _PDV_HEADER.size:
            raise PeerFault(AbortReason.INVALID_PARAMETER, "PDU ends inside the header of a PDV")
        self._gather(_PDV_HEADER.size)
        pdv_length, context_id, control = _PDV_HEADER.unpack_from(self._view, self._start)
        self._start += _PDV_HEADER.size
        if not 2 <= pdv_length <= pdu_left - 4:
            raise PeerFault(
                AbortReason.INVALID_PARAMETER, f"PDV of {pdv_length} bytes in {pdu_left}"
            )
        return pdv_length, context_id, control

    def _pdv(self, left: int, context_id: int, control: int) -> Iterator[Piece]:
        is_command, is_last = bool(control & _COMMAND_BIT), bool(control & _LAST_BIT)
        while True:
            if left and self._start == self._end:
                self._refill()
            start = self._start
            self._start = end = min(self._end, start + left)
            left -= end - start
            yield Piece(context_id, is_command, self._view[start:end], is_last and not left)
            if not left:
                return

    def _gather(self, n_bytes: int) -> None:
        """Read until `n_bytes` lie contiguously in the buffer; used for headers only."""
        while self._end - self._start < n_bytes:
            if len(self._view) - self._start < n_bytes:
                rest = bytes(self._view[self._start : self._end])
                self._view[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            self._refill()

    def _refill(self) -> None:
        """Read what has arrived, or wait for something."""
        if self._start == self._end:
            self._start = self._end = 0
        if time.monotonic() > self._deadline:
            raise PeerFault(AbortReason.NOT_SPECIFIED, f"PDU took over {self._pdu_timeout_s:g} s")
        try:
            n_bytes = self._connection.recv_into(self._view[self._end :])
        except (BlockingIOError, TimeoutError):
            raise PeerFault(AbortReason.NOT_SPECIFIED, "peer silent") from None
        except OSError as error:
            raise ConnectionLost(f"errno={error.errno}") from error
        if not n_bytes:
            raise ConnectionLost("closed by the peer")
        self._end += n_bytes
        acknowledge_at_once(self._connection)
