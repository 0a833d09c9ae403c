"""Receiving: the port, and everything before an association is asked for.

Nothing here waits in the loop that accepts: connections wait in a lobby until they ask for
something, those over TLS shake hands on a thread of their own, against a deadline, and an address
that holds too many connections without asking for an association is turned away at once.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass
from socketserver import BaseServer
from typing import TYPE_CHECKING, Any, Final

from pynetdicom.transport import ThreadedAssociationServer

from receiver.lobby import DICOM, TLS, Lobby
from receiver.throttle import NOTE_INTERVAL_S, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

FIRST_MESSAGE_S: Final = 10.0
"""A connection that has not asked for an association by then is closed."""
HANDSHAKE_S: Final = 10.0
"""How long a TLS handshake may take, from the connection on."""


@dataclass(frozen=True, slots=True)
class Door:
    """What a port demands of a connection.

    Attributes
    ----------
    max_waiting : int
        Connections of one address that have not asked for an association yet. Whoever reaches the
        port can open them, and each costs a thread and a socket.
    note : callable
        Writes an audit row: event, and details by name.
    on_poll : callable
        Called every now and then by the loop that accepts.
    tls : ssl.SSLContext or None
        None takes connections in the clear.
    is_shared : bool
        Whether other processes listen at the same port (SO_REUSEPORT).
    """

    max_waiting: int
    note: Callable[..., None]
    on_poll: Callable[[], None]
    tls: ssl.SSLContext | None = None
    is_shared: bool = False


class StorageServer(ThreadedAssociationServer):
    """Listens for associations.

    Parameters
    ----------
    *arguments, **options
        As pynetdicom passes them.
    door : Door
    """

    request_queue_size = 128

    def __init__(self, *arguments: Any, door: Door, **options: Any) -> None:
        self._door = door
        self._throttle = Throttle(NOTE_INTERVAL_S)
        self._arriving: Counter[str] = Counter()
        """Connections of an address that are no association yet, not even one being asked for."""
        self._lock = threading.Lock()
        super().__init__(*arguments, **options)
        self._lobby = Lobby(
            TLS if door.tls else DICOM,
            admit=super().process_request,
            dismiss=lambda connection, _address: self.shutdown_request(connection),
            expire=self._expire,
            deadline_s=min(FIRST_MESSAGE_S, self.ae.network_timeout or FIRST_MESSAGE_S),
        )

    def server_bind(self) -> None:
        """Bind the socket, where the port is shared as one of several."""
        if self._door.is_shared and self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection and set deadlines on its socket."""
        connection, address = super().get_request()
        connection.settimeout(self.ae.network_timeout)
        # A response must not wait for the sender's delayed acknowledgement.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's
        """Whether the connection may wait for its request."""
        address = client_address[0]
        waiting = self._lobby.count(address) + self._arriving[address]
        waiting += sum(
            each.requestor.primitive is None
            and each.requestor.address == address
            and each.dul.is_alive()
            for each in self.active_associations
        )
        if waiting >= self._door.max_waiting:
            self.note_refusal("too-many-connections", address)
            return False
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Let the connection wait; what it asks for is then served on a thread of its own."""
        self._lobby.enter(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands where that is due, then let pynetdicom have the connection."""
        address = client_address[0]
        with self._lock:
            self._arriving[address] += 1
        try:
            connection = self._secured(request, address)
            if connection is not None:
                super().finish_request(connection, client_address)
        finally:
            with self._lock:
                self._arriving[address] -= 1
                if not self._arriving[address]:
                    del self._arriving[address]

    def _secured(self, connection: socket.socket, address: str) -> socket.socket | None:
        """Return the connection, over TLS where that is due; None where it came to nothing."""
        if self._door.tls is None:
            return connection
        try:
            return shake_hands(connection, self._door.tls, HANDSHAKE_S)
        except OSError as error:
            # OpenSSL's reasons name what was wrong with a certificate, and no value in it.
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "")
            self.note_refusal("tls-handshake-failed", address, reason or "no handshake")
            self.shutdown_request(connection)
            return None

    def _expire(self, connection: socket.socket, client_address: Any) -> None:
        self.note_refusal("no-request-in-time", client_address[0])
        self.shutdown_request(connection)

    def service_actions(self) -> None:
        """Do what is due between two connections."""
        super().service_actions()
        self._door.on_poll()

    def shutdown(self) -> None:
        """Stop listening; associations that are open go on."""
        BaseServer.shutdown(self)
        self.server_close()
        self._lobby.close()

    def note_refusal(self, reason: str, address: str, detail: str = "") -> None:
        """Write an audit row on a connection that is closed; of a flood of them, a few."""
        times = self._throttle.due((reason, address))
        if times is not None:
            details = {"detail": detail} if detail else {}
            self._door.note(
                "connection-refused", reason=reason, peer_address=address, times=times, **details
            )


def require_free(host: str, port: int) -> None:
    """Make sure that nobody listens at a port that is to be shared.

    Raises
    ------
    OSError
        Somebody does: another receiver, which would get half of our connections unnoticed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def shake_hands(
    connection: socket.socket, context: ssl.SSLContext, deadline_s: float
) -> ssl.SSLSocket:
    """Shake hands as the server, in `deadline_s` altogether.

    A timeout on the socket would not do: it begins anew with every byte that drips in.

    Returns
    -------
    ssl.SSLSocket
        With the timeout that `connection` had.

    Raises
    ------
    OSError
        The peer is silent, too slow, speaks no TLS, or has no certificate that counts.
    """
    end = time.monotonic() + deadline_s
    timeout_s = connection.gettimeout()
    connection.settimeout(0)
    secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secured.do_handshake()
                break
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            waiting = select.poll()
            waiting.register(secured, wanted)
            if not waiting.poll(max(0.0, end - time.monotonic()) * 1000):
                raise TimeoutError(f"no TLS handshake within {deadline_s:g} s")
        secured.settimeout(timeout_s)
    except OSError:
        secured.close()
        raise
    return secured
