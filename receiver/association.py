"""Associations from their request to their end: admission, negotiation, data phase.

`Associations` also counts what is open, for the limit of the settings and for an orderly stop.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from core.callers import source_of
from core.text import printable
from core.tls import certificate_names
from receiver.admission import Refusal, refusal
from receiver.contexts import supported_contexts
from receiver.data_phase import DataPhase, Established
from receiver.header import is_valid_uid
from receiver.negotiation import MalformedRequest, Request, accept, read_request
from receiver.pdu import USER_ABORT, end_with, reject_pdu

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.settings import Settings
    from receiver.refusals import Refusals
    from receiver.spool import Spool
    from receiver.supervisor import Occupancy

logger = logging.getLogger(__name__)


class Associations:
    """Serves the associations of one process.

    Parameters
    ----------
    settings : Settings
    spool : Spool
        Admission looks at its free space.
    data_phase : DataPhase
    refusals : Refusals
    occupancy : Occupancy
        Open associations of all processes of the receiver.
    slot : int
        This process.
    """

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        data_phase: DataPhase,
        refusals: Refusals,
        occupancy: Occupancy,
        slot: int,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._data_phase = data_phase
        self._refusals = refusals
        self._occupancy = occupancy
        self._slot = slot
        self._supported = supported_contexts(settings.other_classes)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def n_open(self) -> int:
        """Associations that are accepted and have not ended."""
        with self._lock:
            return len(self._open)

    def serve(
        self,
        connection: socket.socket,
        peer_address: str,
        request_pdu: bytes,
        on_admitted: Callable[[], None],
    ) -> None:
        """Serve a connection that asks for an association, to its end; the caller closes it.

        Parameters
        ----------
        connection : socket.socket
        peer_address : str
        request_pdu : bytes
            Its A-ASSOCIATE-RQ.
        on_admitted : callable
            Called once the association counts as open.
        """
        try:
            request = read_request(request_pdu)
        except MalformedRequest as error:
            self._refusals.count(
                "connection-refused",
                reason="malformed-request",
                peer_address=peer_address,
                cause=str(error),
            )
            end_with(connection, USER_ABORT)
            return
        caller = source_of(peer_address, self._settings.caller_rules)
        names = _certificate_names(connection)
        refused = self._admit(connection, request, peer_address, caller, names)
        if refused is not None:
            self._refusals.count(
                "association-refused",
                reason=refused.reason,
                calling_ae=request.calling_ae,
                called_ae=printable(request.called_ae),
                peer_address=peer_address,
            )
            end_with(connection, reject_pdu(refused.result, refused.source, refused.diagnostic))
            return
        try:
            on_admitted()
            self._serve_admitted(connection, request, peer_address, names)
        finally:
            with self._lock:
                self._open.remove(connection)
                self._occupancy.remove(self._slot, caller)

    def _admit(
        self,
        connection: socket.socket,
        request: Request,
        peer_address: str,
        caller: str,
        names: frozenset[str],
    ) -> Refusal | None:
        """Count the association as open, or return why it is refused."""
        with self._lock:
            refused = refusal(
                self._settings,
                request,
                peer_address=peer_address,
                certificate_names=names,
                has_room=self._spool.has_room(),
                n_open=self._occupancy.n_open(),
                n_of_caller=self._occupancy.n_of(caller),
            )
            if refused is None:
                self._open.add(connection)
                self._occupancy.add(self._slot, caller)
        return refused

    def _serve_admitted(
        self,
        connection: socket.socket,
        request: Request,
        peer_address: str,
        names: frozenset[str],
    ) -> None:
        acceptance = accept(request, self._supported)
        _set_timeouts(connection, self._settings.network_timeout_s)
        connection.sendall(acceptance.pdu)
        if acceptance.rejected:
            self._refusals.count(
                "contexts-refused",
                reason="sop-class-not-taken",
                calling_ae=request.calling_ae,
                peer_address=peer_address,
                sop_classes={
                    uid if is_valid_uid(uid) else "invalid": reason
                    for uid, reason in acceptance.rejected.items()
                },
            )
        self._data_phase.serve(
            Established(
                connection=connection,
                contexts=acceptance.contexts,
                peer_max_length=request.max_length,
                calling_ae=request.calling_ae,
                peer_address=peer_address,
                certificate_names=names,
            )
        )

    def abort_all(self) -> int:
        """Let every open association end with an A-ABORT; return how many there were."""
        with self._lock:
            for connection in self._open:
                # Its thread reads the end of the stream and aborts. Not `connection.shutdown`,
                # which would take TLS away from an SSLSocket that another thread uses.
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RD)
            return len(self._open)


def _certificate_names(connection: socket.socket) -> frozenset[str]:
    """Return the names in the certificate of a caller; none without TLS."""
    return certificate_names(
        connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    )


def _set_timeouts(connection: socket.socket, timeout_s: float) -> None:
    """Let the kernel keep the timeouts: Python's own cost a system call for each read.

    Not for TLS, where Python would wait for the kernel once more after the kernel's timeout.
    """
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(timeout_s)
        return
    connection.settimeout(None)
    seconds, rest = divmod(timeout_s, 1)
    timeval = struct.pack("@ll", int(seconds), int(rest * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
