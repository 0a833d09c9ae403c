"""Receiving: the data phase of an association, from socket to spool file on one thread.

pynetdicom has negotiated the association and does not read from its socket any more; here its
messages are taken as they come, each answered before the next is looked at. A data set is written
out piece by piece and never held, so the memory of an association is one buffer however long an
instance is. Nothing here decodes a data set, except that of a commitment report.
"""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from core import commitment
from receiver.dimse import (
    MAX_COMMAND_BYTES,
    BadCommand,
    Command,
    DimseStatus,
    Operation,
    parse_command,
    response,
)
from receiver.pdu import (
    RELEASE_RP,
    AbortReason,
    ConnectionLost,
    End,
    PduReader,
    PeerFault,
    Piece,
    abort_pdu,
    command_pdus,
)
from receiver.status import Refused
from receiver.storage import Incoming, Storage, StoreRequest
from receiver.throttle import NOTE_INTERVAL_S, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

MIN_BYTES_PER_S: Final = 1024
"""A message that comes more slowly than this on average, after a grace of one network timeout, ends
its association: PDUs of one byte, each in time, would otherwise hold it for ever."""
MAX_REPORT_BYTES: Final = 1024 * 1024
"""Longest commitment report; some 8,000 objects. We ask for those of one study at a time."""
_LINGER_S: Final = 1.0
_VERIFICATION: Final = "1.2.840.10008.1.1"


class Context(NamedTuple):
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class Established:
    """An association that has been negotiated: all that the data phase needs to know of it."""

    connection: socket.socket
    """Blocking, with SO_RCVTIMEO and SO_SNDTIMEO set."""
    contexts: Mapping[int, Context]
    peer_max_length: int
    """Longest PDU that the peer receives, in bytes; 0 is unlimited."""
    calling_ae: str
    peer_address: str


class Answer(NamedTuple):
    """Status of a response, and its Error Comment."""

    status: int
    comment: str = ""


class _DataSet(Protocol):
    """Where the data set of one request goes."""

    def write(self, data: memoryview) -> None:
        """Take the next part; never raises."""

    def finish(self) -> Answer | None:
        """Answer the request, or None where it gets no response."""

    def discard(self) -> None:
        """Leave nothing behind of what was not finished."""


class DataPhase:
    """Serves established associations.

    Parameters
    ----------
    storage : Storage
    take_report : callable
        Takes the encoded Event Information of an N-EVENT-REPORT of Storage Commitment and its
        transfer syntax UID; returns a DIMSE status.
    network_timeout_s : float
        How long one PDU may take.
    """

    def __init__(
        self,
        storage: Storage,
        take_report: Callable[[bytes, str], int],
        network_timeout_s: float,
    ) -> None:
        self.storage = storage
        self.take_report = take_report
        self.network_timeout_s = network_timeout_s
        self._throttle = Throttle(NOTE_INTERVAL_S)

    def serve(self, association: Established) -> End:
        """Serve one association to its end; the connection is still to be closed then."""
        conversation = _Conversation(self, association)
        try:
            return conversation.run()
        except PeerFault as fault:
            self._note_abort(association, fault)
            _abort(association.connection, fault.reason)
        except ConnectionLost as lost:
            logger.warning("connection-lost cause=%s", lost)
            _abort(association.connection, AbortReason.NOT_SPECIFIED)
        except OSError as error:  # of sending: the peer does not listen any more
            logger.warning("connection-lost errno=%s", error.errno)
        except Exception:  # a fault of ours must not leave the peer waiting
            logger.exception("association-failed")
            _abort(association.connection, AbortReason.NOT_SPECIFIED)
        finally:
            conversation.discard()
        return End.ABORT

    def _note_abort(self, association: Established, fault: PeerFault) -> None:
        reason = fault.reason.name.lower().replace("_", "-")
        times = self._throttle.due((reason, association.calling_ae, association.peer_address))
        if times is not None:
            self.storage.ledger.note(
                "association-aborted",
                reason=reason,
                detail=str(fault),
                calling_ae=association.calling_ae,
                peer_address=association.peer_address,
                times=times,
            )


class _Conversation:
    """The messages of one association, one after the other (no asynchronous operations)."""

    def __init__(self, phase: DataPhase, association: Established) -> None:
        self._phase = phase
        self._association = association
        self._reader = PduReader(association.connection, phase.network_timeout_s)
        self._command_bytes = bytearray()
        self._command: Command | None = None
        """The request whose data set is coming; None between messages and within a command."""
        self._data_set: _DataSet | None = None
        self._context_id = 0
        """Of the message that is coming; 0, which no context has, between messages."""
        self._began = 0.0
        self._n_bytes = 0

    def run(self) -> End:
        for piece in self._reader.pieces():
            self._check_context(piece)
            if piece.is_command:
                self._take_command(piece)
            else:
                self._take_data(piece)
        if self._reader.ended_by is End.RELEASE:
            self._association.connection.sendall(RELEASE_RP)
        return self._reader.ended_by

    def discard(self) -> None:
        if self._data_set is not None:
            self._data_set.discard()

    def _check_context(self, piece: Piece) -> None:
        """Every fragment of a message comes over one context, and without undue pause."""
        now = time.monotonic()
        if not self._context_id:
            if piece.context_id not in self._association.contexts:
                raise PeerFault(AbortReason.INVALID_PARAMETER, "a context that was not accepted")
            self._context_id = piece.context_id
            self._began, self._n_bytes = now, 0
        elif piece.context_id != self._context_id:
            raise PeerFault(AbortReason.UNEXPECTED_PARAMETER, "contexts change within a message")
        self._n_bytes += len(piece.data)
        allowed_s = self._phase.network_timeout_s + self._n_bytes / MIN_BYTES_PER_S
        if now - self._began > allowed_s:
            raise PeerFault(AbortReason.NOT_SPECIFIED, f"{self._n_bytes} bytes in {allowed_s:.0f}s")

    def _take_command(self, piece: Piece) -> None:
        if self._command is not None:
            raise PeerFault(AbortReason.UNEXPECTED_PARAMETER, "a command within a data set")
        self._command_bytes += piece.data
        if len(self._command_bytes) > MAX_COMMAND_BYTES:
            raise PeerFault(AbortReason.INVALID_PARAMETER, f"command over {MAX_COMMAND_BYTES}")
        if not piece.ends_message:
            return
        try:
            self._command = parse_command(bytes(self._command_bytes))
        except BadCommand as error:
            raise PeerFault(AbortReason.INVALID_PARAMETER, f"command with {error}") from None
        self._command_bytes.clear()
        self._data_set = self._begin(self._command)
        if not self._command.has_data_set:
            self._finish(self._command, self._data_set)

    def _take_data(self, piece: Piece) -> None:
        if self._command is None or self._data_set is None:
            raise PeerFault(AbortReason.UNEXPECTED_PARAMETER, "a data set without a command")
        self._data_set.write(piece.data)
        if piece.ends_message:
            self._finish(self._command, self._data_set)

    def _begin(self, command: Command) -> _DataSet:
        """Decide what becomes of a request, from its command and context alone."""
        context = self._association.contexts[self._context_id]
        is_commitment = context.abstract_syntax == commitment.SOP_CLASS_UID
        is_storage = not is_commitment and context.abstract_syntax != _VERIFICATION
        if command.field == Operation.C_STORE and is_storage:
            return _Instance(self._phase.storage.begin(self._store_request(command, context)))
        if command.field == Operation.C_ECHO:
            return _Dropped(Answer(DimseStatus.SUCCESS))
        if command.field == Operation.N_EVENT_REPORT and is_commitment:
            return _Report(self._phase.take_report, context.transfer_syntax_uid)
        if command.field == Operation.C_CANCEL:
            return _Dropped(None)  # of an operation that is over, or never was
        return _Dropped(Answer(DimseStatus.UNRECOGNIZED_OPERATION))

    def _store_request(self, command: Command, context: Context) -> StoreRequest:
        return StoreRequest(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            abstract_syntax=context.abstract_syntax,
            transfer_syntax_uid=context.transfer_syntax_uid,
            calling_ae=self._association.calling_ae,
            peer_address=self._association.peer_address,
        )

    def _finish(self, command: Command, data_set: _DataSet) -> None:
        answer = data_set.finish()
        data_set.discard()
        if answer is not None:
            self._association.connection.sendall(
                command_pdus(
                    self._context_id,
                    response(command, answer.status, answer.comment),
                    self._association.peer_max_length,
                )
            )
        self._command = self._data_set = None
        self._context_id = 0


class _Instance:
    """The data set of a C-STORE."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self.write = incoming.write
        self.discard = incoming.discard

    def finish(self) -> Answer:
        try:
            self._incoming.finish()
        except Refused as refused:
            return Answer(refused.status, refused.message)
        return Answer(DimseStatus.SUCCESS)


class _Report:
    """The Event Information of a commitment report, the one data set that is held and decoded."""

    def __init__(self, take_report: Callable[[bytes, str], int], transfer_syntax_uid: str) -> None:
        self._take_report = take_report
        self._transfer_syntax_uid = transfer_syntax_uid
        self._encoded = bytearray()
        self._is_too_long = False

    def write(self, data: memoryview) -> None:
        if len(self._encoded) + len(data) > MAX_REPORT_BYTES:
            self._is_too_long = True
        else:
            self._encoded += data

    def finish(self) -> Answer:
        if self._is_too_long:
            return Answer(DimseStatus.RESOURCE_LIMITATION)
        try:
            return Answer(self._take_report(bytes(self._encoded), self._transfer_syntax_uid))
        except Exception:  # whatever the report provokes must end as a status
            logger.exception("report-failed")
            return Answer(DimseStatus.PROCESSING_FAILURE)

    def discard(self) -> None:
        pass


class _Dropped:
    """A data set that nobody asked for, or that is of no interest."""

    def __init__(self, answer: Answer | None) -> None:
        self._answer = answer

    def write(self, data: memoryview) -> None:
        pass

    def finish(self) -> Answer | None:
        return self._answer

    def discard(self) -> None:
        pass


def _abort(connection: socket.socket, reason: AbortReason) -> None:
    """Tell the peer, and let it read that before the connection goes (PS3.8 state Sta13).

    Closing at once, with data of the peer unread, would reset the connection and take the A-ABORT
    away from it.
    """
    try:
        connection.sendall(abort_pdu(reason))
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(_LINGER_S)
        end = time.monotonic() + _LINGER_S
        while time.monotonic() < end and connection.recv(65536):
            pass
    except OSError:  # it has gone already
        pass
