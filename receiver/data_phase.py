"""The data phase of an association: DIMSE requests read from the socket and answered in order.

Each request is answered before the next one is read. A data set is written to the spool piece by
piece and never held in memory, so an association needs one buffer however long an instance is. No
data set is decoded here, except that of a storage commitment report.
"""

from __future__ import annotations

import logging
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
    end_with,
)
from receiver.status import Refused
from receiver.storage import Incoming, Storage, StoreRequest

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from receiver.negotiation import Context
    from receiver.refusals import Refusals

logger = logging.getLogger(__name__)

MIN_BYTES_PER_S: Final = 1024
"""Slowest average rate of a message, after a grace of one network timeout; a slower one ends the
association. Without it, PDUs of one byte, each in time, could hold an association for ever."""
MAX_REPORT_BYTES: Final = 1024 * 1024
"""Longest commitment report: some 8,000 objects. The node requests those of one study at a time."""
_VERIFICATION: Final = "1.2.840.10008.1.1"


@dataclass(frozen=True, slots=True)
class Established:
    """A negotiated association, as the data phase needs it."""

    connection: socket.socket
    """Blocking, with SO_RCVTIMEO and SO_SNDTIMEO set."""
    contexts: Mapping[int, Context]
    peer_max_length: int
    """Longest PDU that the peer receives, in bytes; 0 is unlimited."""
    calling_ae: str
    peer_address: str
    certificate_names: frozenset[str] = frozenset()
    """Names in the certificate of the peer, in lower case; none without TLS."""


class Result(NamedTuple):
    """Status of a DIMSE response, and its Error Comment."""

    status: int
    comment: str = ""


class _DataSet(Protocol):
    """Destination of the data set of one request."""

    def write(self, data: memoryview) -> None:
        """Take the next part; never raises."""

    def finish(self) -> Result | None:
        """Return the result of the request, or None if it gets no response."""

    def discard(self) -> None:
        """Remove what was not finished."""


class DataPhase:
    """Serves established associations.

    Parameters
    ----------
    storage : Storage
    take_report : callable
        Takes the encoded Event Information of an N-EVENT-REPORT of Storage Commitment, its
        transfer syntax UID and the association; returns a DIMSE status.
    refusals : Refusals
    network_timeout_s : float
        Longest time for one PDU.
    idle_timeout_s : float
        An association that stores and reports nothing for this long is aborted, whatever else it
        does: C-ECHO must not hold it for ever.
    """

    def __init__(
        self,
        storage: Storage,
        take_report: Callable[[bytes, str, Established], int],
        refusals: Refusals,
        *,
        network_timeout_s: float,
        idle_timeout_s: float,
    ) -> None:
        self.storage = storage
        self.take_report = take_report
        self.network_timeout_s = network_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self._refusals = refusals

    def serve(self, association: Established) -> None:
        """Serve one association to its end; the caller closes the connection."""
        requests = _Requests(self, association)
        try:
            requests.run()
        except PeerFault as fault:
            self._refusals.count(
                "association-aborted",
                reason=fault.code,
                calling_ae=association.calling_ae,
                peer_address=association.peer_address,
                detail=str(fault),
            )
            end_with(association.connection, abort_pdu(fault.reason))
        except ConnectionLost as lost:
            logger.warning("connection-lost cause=%s", lost)
            end_with(association.connection, abort_pdu(AbortReason.NOT_SPECIFIED))
        except OSError as error:  # while sending: the peer no longer reads
            logger.warning("connection-lost errno=%s", error.errno)
        except Exception:  # an internal error must not leave the peer waiting
            logger.exception("association-failed")
            end_with(association.connection, abort_pdu(AbortReason.NOT_SPECIFIED))


class _Requests:
    """The requests of one association, one after the other (no asynchronous operations)."""

    def __init__(self, phase: DataPhase, association: Established) -> None:
        self._phase = phase
        self._association = association
        self._reader = PduReader(association.connection, phase.network_timeout_s)
        self._command_bytes = bytearray()
        self._command: Command | None = None
        """The request whose data set is being read; None between messages and within a command."""
        self._data_set: _DataSet | None = None
        self._context_id = 0
        """Of the message being read; 0, which is no context ID, between messages."""
        self._began = 0.0
        self._n_bytes = 0
        self._useful_at = time.monotonic()
        """When the association last stored or reported something, or was doing so."""

    def run(self) -> None:
        try:
            for piece in self._reader.pieces():
                self._check_context(piece)
                if piece.is_command:
                    self._take_command(piece)
                else:
                    self._take_data(piece)
        finally:  # a peer that learns of the end finds nothing left of an unfinished instance
            if self._data_set is not None:
                self._data_set.discard()
        if self._reader.ended_by is End.RELEASE:
            self._association.connection.sendall(RELEASE_RP)

    def _check_context(self, piece: Piece) -> None:
        """Check that a message keeps to one context and to the slowest rate allowed."""
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

    def _check_use(self) -> None:
        """Check that the association stores or reports something now and then."""
        now = time.monotonic()
        is_of_use = not isinstance(self._data_set, _Dropped)
        if is_of_use and self._n_bytes <= self._phase.storage.max_instance_bytes:
            self._useful_at = now
        elif now - self._useful_at > self._phase.idle_timeout_s:
            detail = f"nothing stored for {self._phase.idle_timeout_s:g} s"
            raise PeerFault(AbortReason.NOT_SPECIFIED, detail, "nothing-stored")

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
        self._check_use()
        if not self._command.has_data_set:
            self._finish(self._command, self._data_set)

    def _take_data(self, piece: Piece) -> None:
        if self._command is None or self._data_set is None:
            raise PeerFault(AbortReason.UNEXPECTED_PARAMETER, "a data set without a command")
        self._check_use()
        self._data_set.write(piece.data)
        if piece.ends_message:
            self._finish(self._command, self._data_set)

    def _begin(self, command: Command) -> _DataSet:
        """Choose the destination of a request's data set by its command and context."""
        context = self._association.contexts[self._context_id]
        is_commitment = context.abstract_syntax == commitment.SOP_CLASS_UID
        is_storage = not is_commitment and context.abstract_syntax != _VERIFICATION
        if command.field == Operation.C_STORE and is_storage:
            return _Instance(self._phase.storage.begin(self._store_request(command, context)))
        if command.field == Operation.C_ECHO:
            return _Dropped(Result(DimseStatus.SUCCESS))
        if command.field == Operation.N_EVENT_REPORT and is_commitment:
            return _Report(
                lambda encoded: self._phase.take_report(
                    encoded, context.transfer_syntax_uid, self._association
                )
            )
        if command.field == Operation.C_CANCEL:
            return _Dropped(None)  # no operation can be in progress
        return _Dropped(Result(DimseStatus.UNRECOGNIZED_OPERATION))

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
        result = data_set.finish()
        data_set.discard()
        if result is not None:
            self._association.connection.sendall(
                command_pdus(
                    self._context_id,
                    response(command, result.status, result.comment),
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

    def finish(self) -> Result:
        try:
            self._incoming.finish()
        except Refused as refused:
            return Result(refused.status, refused.message)
        return Result(DimseStatus.SUCCESS)


class _Report:
    """The Event Information of a commitment report, the only data set that is held in memory."""

    def __init__(self, take_report: Callable[[bytes], int]) -> None:
        self._take_report = take_report
        self._encoded = bytearray()
        self._is_too_long = False

    def write(self, data: memoryview) -> None:
        if len(self._encoded) + len(data) > MAX_REPORT_BYTES:
            self._is_too_long = True
        else:
            self._encoded += data

    def finish(self) -> Result:
        if self._is_too_long:
            return Result(DimseStatus.RESOURCE_LIMITATION)
        try:
            return Result(self._take_report(bytes(self._encoded)))
        except Exception:  # every error must end as a status
            logger.exception("report-failed")
            return Result(DimseStatus.PROCESSING_FAILURE)

    def discard(self) -> None:
        pass


class _Dropped:
    """A data set that is read and ignored."""

    def __init__(self, result: Result | None) -> None:
        self._result = result

    def write(self, data: memoryview) -> None:
        pass

    def finish(self) -> Result | None:
        return self._result

    def discard(self) -> None:
        pass
