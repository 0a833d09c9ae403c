"""Receiving: the one place that touches what pynetdicom does not document.

pynetdicom negotiates an association on two threads: the DUL's, which reads PDUs from the socket,
and the association's. `StreamingAssociation` lets it do so, stops the DUL's thread once the
A-ASSOCIATE-AC is out, and hands the socket to `receiver.streaming`. `StorageRequestHandler` makes
such an association, or a plain one, for each connection; both read through a `BoundedSocket`.

Every name used here is held against the installed version by
``tests/unit/receiver/test_pynetdicom_internals.py``; ``pyproject.toml`` pins the range.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any, Final, cast

from pynetdicom import _config, evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket, RequestHandler

from receiver.pdu import MAX_PDU_BYTES, AbortReason, End, abort_pdu, acknowledge_at_once
from receiver.streaming import Context, Established

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.ae import ApplicationEntity

logger = logging.getLogger(__name__)

_RECV_BYTES: Final = 65_536
_WAIT_MS: Final = 50


def configure() -> None:
    """Set the process-wide switches of pynetdicom that the receiver relies on."""
    # A UID that is none shall be answered with a status, for the sender to go on with the next
    # instance; pynetdicom would abort the association. `receiver.header` checks every UID.
    _config.VALIDATORS["UI"] = lambda _value: (True, "")
    _config.LOG_HANDLER_LEVEL = "none"
    # Warnings about UIDs quote the values.
    logging.getLogger("pynetdicom.utils").setLevel(logging.ERROR)


class BoundedSocket(AssociationSocket):
    """Reads no PDU longer than `MAX_PDU_BYTES`, and none that takes longer than its deadline.

    Parameters
    ----------
    association : Association
    connection : socket.socket
    note : callable
        Is given a reason and details of each PDU that was not read.
    """

    def __init__(
        self, association: Association, connection: socket.socket, note: Callable[[str, str], None]
    ) -> None:
        super().__init__(association, client_socket=connection)
        self._note = note

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`, or fewer where the connection ends.

        Raises
        ------
        OSError
            Too many, too slow, or the connection broke; pynetdicom takes it for closed then.
        """
        connection = cast("socket.socket", self.socket)
        if nr_bytes > MAX_PDU_BYTES:
            connection.sendall(abort_pdu(AbortReason.INVALID_PARAMETER))
            raise self._given_up("pdu-too-long", f"PDU of {nr_bytes} bytes announced")
        timeout_s = self.assoc.network_timeout if self.assoc.is_established else None
        end = time.monotonic() + (timeout_s or self.assoc.acse_timeout or 0)
        received = bytearray()
        while len(received) < nr_bytes:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise self._given_up("pdu-too-slow", f"PDU of {nr_bytes} bytes")
            connection.settimeout(left_s)
            part = connection.recv(min(nr_bytes - len(received), _RECV_BYTES))
            acknowledge_at_once(connection)
            if not part:
                break
            received += part
        connection.settimeout(self.assoc.network_timeout)
        return received

    def _given_up(self, reason: str, detail: str) -> OSError:
        """Say why, and make what pynetdicom takes for a closed connection."""
        self._note(reason, detail)
        return OSError(detail)


class PromptDul(DULServiceProvider):
    """A DUL service provider that says so when it ends.

    pynetdicom's association waits for its request as long as it may take, also when the connection
    has gone: that is a thread for some seconds for everyone who connects and hangs up.
    """

    def run_reactor(self) -> None:
        """Run until the connection ends."""
        try:
            super().run_reactor()
        finally:
            cast("Any", self.to_user_queue).put(None)  # nothing came, and nothing will


class NegotiatingDul(PromptDul):
    """A DUL service provider that ends with the negotiation, before it reads any P-DATA."""

    def _is_transport_event(self) -> bool:
        state = self.state_machine.current_state
        if state == "Sta6":  # established: the A-ASSOCIATE-AC is out, the socket is not ours now
            self.kill_dul()
            return False
        # Nothing can happen but the A-ASSOCIATE-RQ, unless it has come: wait instead of polling.
        if state == "Sta2" and self.event_queue.empty():
            connection = self.socket.socket if self.socket else None
            if connection is not None:
                waiting = select.poll()
                waiting.register(connection, select.POLLIN)
                waiting.poll(_WAIT_MS)
        return super()._is_transport_event()


class StreamingAssociation(Association):
    """An association that pynetdicom negotiates, and `serve` serves.

    Parameters
    ----------
    ae : ApplicationEntity
    serve : callable
        Is given the established association; returns what ended it.
    """

    def __init__(self, ae: ApplicationEntity, serve: Callable[[Established], End]) -> None:
        super().__init__(ae, "acceptor")
        self._serve = serve
        self._is_streaming = False
        _replace_dul(self, NegotiatingDul(self))

    def _run_reactor(self) -> None:
        """Take the place of pynetdicom's loop over the messages of an established association."""
        self.dul.join(self.acse_timeout)
        connection = self.dul.socket.socket if self.dul.socket else None
        if self.dul.is_alive() or connection is None:  # lost while it was being accepted
            self.is_aborted = True
            self.kill()
            return
        self._is_streaming = True
        _set_timeouts(connection, self.network_timeout or 0)
        end = self._serve(self._established(connection))
        self.is_established = False
        if end is End.RELEASE:
            self.is_released = True
            evt.trigger(self, evt.EVT_RELEASED, {})
        else:
            self.is_aborted = True
            evt.trigger(self, evt.EVT_ABORTED, {})

    def _abort_blocking(self, block: bool = True) -> None:
        """Abort from another thread: end the reading, which makes the data phase abort."""
        if not self._is_streaming:
            super()._abort_blocking(block)
        elif self.is_established and self.dul.socket and self.dul.socket.socket:
            try:
                self.dul.socket.socket.shutdown(socket.SHUT_RD)
            except OSError:  # closed meanwhile
                logger.debug("abort of a closed connection")

    def _established(self, connection: socket.socket) -> Established:
        primitive: Any = self.requestor.primitive
        return Established(
            connection=connection,
            contexts={
                cast("int", context.context_id): Context(
                    str(context.abstract_syntax), str(context.transfer_syntax[0])
                )
                for context in self.accepted_contexts
            },
            peer_max_length=self.requestor.maximum_length or 0,
            calling_ae=primitive.calling_ae_title.strip(),
            peer_address=self.requestor.address or "",
        )


def peer_certificate(association: Association) -> dict[str, Any] | None:
    """Return the caller's verified certificate, as `ssl` gives it; None without TLS."""
    connection = association.dul.socket.socket if association.dul.socket else None
    return connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None


class StorageRequestHandler(RequestHandler):
    """Makes the association of each connection.

    Parameters
    ----------
    request, client_address, server
        As socketserver passes them.
    serve : callable, optional
        Serves established associations; by default pynetdicom does.
    """

    def __init__(
        self,
        request: socket.socket,
        client_address: Any,
        server: Any,
        *,
        serve: Callable[[Established], End] | None = None,
    ) -> None:
        self._serve = serve  # first: the base class handles the request from its constructor
        super().__init__(request, client_address, server)

    def _create_association(self) -> Association:
        if self._serve is None:
            association = Association(self.ae, "acceptor")
            _replace_dul(association, PromptDul(association))
        else:
            association = StreamingAssociation(self.ae, self._serve)
        association._server = self.server  # noqa: SLF001 - this module is where that is done
        association.name = f"AcceptorThread@{time.time():.0f}"  # the server finds them by this name
        association.set_socket(BoundedSocket(association, self.request, self._note))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        # Not a deep copy as pynetdicom makes it: that takes up to 60 ms for each connection, before
        # it has asked for anything, and the negotiation only reads them.
        acceptor.supported_contexts = list(self.server.contexts)
        association.requestor.address_info = self.remote
        self._bind_handlers(association)
        return association

    def _note(self, reason: str, detail: str) -> None:
        cast("Any", self.server).note_refusal(reason, self.client_address[0], detail)

    def _bind_handlers(self, association: Association) -> None:
        for event in self.server.get_events():
            bound: Any = self.server.get_handlers(event)
            for handler, arguments in [bound] if event.is_intervention else bound:
                association.bind(event, handler, arguments)


def _replace_dul(association: Association, dul: DULServiceProvider) -> None:
    """Give an association that has not begun another provider."""
    association.dul = dul
    # These setters reach through to the provider that has just been replaced.
    association.acse_timeout = association.ae.acse_timeout
    association.network_timeout = association.ae.network_timeout


def _set_timeouts(connection: socket.socket, timeout_s: float) -> None:
    """Let the kernel keep the timeouts: Python's own cost a system call for each read.

    Not for TLS, where Python waits for the kernel once more when the kernel's time is up.
    """
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(timeout_s)
        return
    connection.settimeout(None)
    seconds, rest = divmod(timeout_s, 1)
    timeval = struct.pack("@ll", int(seconds), int(rest * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
