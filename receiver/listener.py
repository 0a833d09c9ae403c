"""The listening ports: connections are accepted, secured with TLS and read up to their first PDU.

Each connection has a thread of its own from the moment it is accepted. Until it has asked for an
association it is a pending connection: it has a deadline, and one address may hold a few only.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from receiver.pdu import USER_ABORT, ConnectionLost, NoRequest, end_with, read_associate_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.audit_limiter import AuditLimiter

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 10.0
"""Longest time from the connection to a complete TLS handshake, and from there to a complete
A-ASSOCIATE-RQ."""
_BACKLOG: Final = 128
_ACCEPT_TIMEOUT_S: Final = 0.2
_AFTER_ERROR_S: Final = 0.1


class Listener:
    """Accepts the connections of one port.

    Parameters
    ----------
    host : str
    port : int
    serve : callable
        Serves a connection to its end; is given it, the peer's address and its A-ASSOCIATE-RQ.
    audit : AuditLimiter
        Appends ``connection-refused``.
    max_pending : int
        Pending connections of one address; more are closed. Anyone who reaches the port can open
        them, and each costs a thread and a socket.
    timeout_s : float
        See `REQUEST_TIMEOUT_S`.
    tls : callable, optional
        Returns the context for a new connection. Without it, connections are not encrypted.
    is_shared : bool
        Whether other processes listen at the same port (SO_REUSEPORT).

    Raises
    ------
    OSError
        The port is taken or must not be used.
    """

    def __init__(
        self,
        host: str,
        port: int,
        serve: Callable[[socket.socket, str, bytes], None],
        audit: AuditLimiter,
        *,
        max_pending: int,
        timeout_s: float = REQUEST_TIMEOUT_S,
        tls: Callable[[], ssl.SSLContext] | None = None,
        is_shared: bool = False,
    ) -> None:
        self._serve = serve
        self._audit = audit
        self._max_pending = max_pending
        self._timeout_s = timeout_s
        self._tls = tls
        self._pending: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._is_open = True
        self._socket = _bind(host, port, is_shared=is_shared)
        self._socket.listen(_BACKLOG)
        self._socket.settimeout(_ACCEPT_TIMEOUT_S)
        self._thread = threading.Thread(target=self._accept, name=f"accept-{port}", daemon=True)

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening; open connections continue."""
        self._is_open = False
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while self._is_open:
            try:
                connection, address = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:  # out of descriptors, or the peer has gone already
                logger.warning("accept-failed errno=%s", error.errno)
                time.sleep(_AFTER_ERROR_S)
                continue
            try:
                self._begin(connection, str(address[0]))
            except Exception:  # no error of one connection may end this thread
                logger.exception("connection-failed")
                connection.close()

    def _begin(self, connection: socket.socket, peer_address: str) -> None:
        with self._lock:
            is_refused = self._pending[peer_address] >= self._max_pending
            if not is_refused:
                self._pending[peer_address] += 1
        if is_refused:
            self._refuse("too-many-connections", peer_address)
            connection.close()
            return
        # A response must not wait for the sender's delayed acknowledgement.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        threading.Thread(
            target=self._run, args=(connection, peer_address), name="association", daemon=True
        ).start()

    def _run(self, connection: socket.socket, peer_address: str) -> None:
        try:
            request = None
            try:
                if self._tls is not None:
                    connection = shake_hands(connection, self._tls(), self._timeout_s)
                request = self._read_request(connection, peer_address)
            except HandshakeFailed as error:
                self._refuse("tls-handshake-failed", peer_address, str(error))
            finally:
                self._no_longer_pending(peer_address)
            if request is not None:
                self._serve(connection, peer_address, request)
        except OSError as error:
            logger.warning("connection-lost errno=%s", error.errno)
        except Exception:  # an internal error must not leave the peer waiting
            logger.exception("connection-failed")
            end_with(connection, USER_ABORT)
        finally:
            connection.close()

    def _read_request(self, connection: socket.socket, peer_address: str) -> bytes | None:
        """Return the A-ASSOCIATE-RQ; None if the connection ends without one."""
        try:
            return read_associate_request(connection, time.monotonic() + self._timeout_s)
        except NoRequest as error:
            if error.reason:
                self._refuse(error.reason, peer_address)
                end_with(connection, USER_ABORT)
        except TimeoutError:
            self._refuse("no-request-in-time", peer_address)
        except ConnectionLost:
            logger.debug("closed-without-request")  # a port scan or a health check
        return None

    def _no_longer_pending(self, peer_address: str) -> None:
        with self._lock:
            self._pending[peer_address] -= 1
            if not self._pending[peer_address]:
                del self._pending[peer_address]

    def _refuse(self, reason: str, peer_address: str, detail: str = "") -> None:
        self._audit.append(
            "connection-refused", reason=reason, peer_address=peer_address, detail=detail
        )


class HandshakeFailed(Exception):
    """A TLS handshake did not succeed; the message contains no value that the peer sent."""


def shake_hands(
    connection: socket.socket, context: ssl.SSLContext, timeout_s: float
) -> ssl.SSLSocket:
    """Perform a TLS handshake as the server within `timeout_s` altogether.

    A timeout of the socket would not do: it starts again with every byte.

    Raises
    ------
    HandshakeFailed
        The peer is silent, too slow, does not speak TLS, or has no acceptable certificate.
    """
    end = time.monotonic() + timeout_s
    try:
        connection.settimeout(0)
        secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    except OSError as error:
        raise HandshakeFailed("connection lost") from error
    try:
        while (events := _continue_handshake(secured)) is not None:
            _wait_for(secured, events, end)
    except OSError as error:
        secured.close()
        # OpenSSL's reasons name what is wrong with a certificate, without any value in it.
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "")
        raise HandshakeFailed(reason or "no handshake") from error
    return secured


def _continue_handshake(secured: ssl.SSLSocket) -> int | None:
    """Return the events of `poll` that the handshake waits for; None once it is complete."""
    try:
        secured.do_handshake()
    except ssl.SSLWantReadError:
        return select.POLLIN
    except ssl.SSLWantWriteError:
        return select.POLLOUT
    return None


def _wait_for(connection: socket.socket, events: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(connection, events)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def require_free(host: str, port: int) -> None:
    """Make sure that no other program listens at a port that is to be shared.

    Raises
    ------
    OSError
        One does, for instance another receiver, which would silently get half of the connections.
    """
    _bind(host, port, is_shared=False).close()


def _bind(host: str, port: int, *, is_shared: bool) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening
