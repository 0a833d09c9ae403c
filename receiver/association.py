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

from core.tls import certificate_names
from receiver.admission import Refusal, refusal
from receiver.contexts import supported_contexts
from receiver.data_phase import DataPhase, Established
from receiver.negotiation import MalformedRequest, Request, accept, read_request
from receiver.pdu import USER_ABORT, end_with, reject_pdu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from core.settings import Settings
    from receiver.audit_limiter import AuditLimiter
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
    append_event : callable
        Appends an audit event: its name, then its details by keyword.
    audit : AuditLimiter
        Appends ``connection-refused``.
    occupancy : Occupancy
        Counts of all processes of the receiver.
    slot : int
        This process.
    """

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        data_phase: DataPhase,
        append_event: Callable[..., None],
        audit: AuditLimiter,
        occupancy: Occupancy,
        slot: int,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._data_phase = data_phase
        self._append_event = append_event
        self._audit = audit
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

    def serve(self, connection: socket.socket, peer_address: str, request_pdu: bytes) -> None:
        """Serve a connection that asks for an association, to its end; the caller closes it."""
        try:
            request = read_request(request_pdu)
        except MalformedRequest as error:
            logger.warning("malformed-request cause=%s", error)
            self._audit.append(
                "connection-refused", reason="malformed-request", peer_address=peer_address
            )
            end_with(connection, USER_ABORT)
            return
        parties = {
            "calling_ae": request.calling_ae,
            "called_ae": request.called_ae,
            "peer_address": peer_address,
        }
        refused = self._admit(connection, request, peer_address)
        if refused is not None:
            end_with(connection, reject_pdu(refused.result, refused.source, refused.diagnostic))
            self._append_event("association-refused", reason=refused.reason, **parties)
            return
        try:
            self._serve_admitted(connection, request, parties)
        finally:
            with self._lock:
                self._open.remove(connection)
                self._occupancy.set(self._slot, len(self._open))

    def _admit(
        self, connection: socket.socket, request: Request, peer_address: str
    ) -> Refusal | None:
        """Count the association as open, or return why it is refused."""
        certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
        with self._lock:
            refused = refusal(
                self._settings,
                request,
                peer_address=peer_address,
                certificate_names=certificate_names(certificate),
                has_room=self._spool.has_room(),
                n_open=len(self._open) + self._occupancy.of_others(self._slot),
            )
            if refused is None:
                self._open.add(connection)
                self._occupancy.set(self._slot, len(self._open))
        return refused

    def _serve_admitted(
        self, connection: socket.socket, request: Request, parties: Mapping[str, str]
    ) -> None:
        acceptance = accept(request, self._supported)
        _set_timeouts(connection, self._settings.network_timeout_s)
        connection.sendall(acceptance.pdu)
        if acceptance.rejected:
            self._append_event("contexts-refused", sop_classes=dict(acceptance.rejected), **parties)
        self._data_phase.serve(
            Established(
                connection=connection,
                contexts=acceptance.contexts,
                peer_max_length=request.max_length,
                calling_ae=parties["calling_ae"],
                peer_address=parties["peer_address"],
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
