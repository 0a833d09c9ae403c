"""The listening ports: connections are accepted, secured with TLS and read up to their first PDU.

Each connection has a thread of its own from the moment it is accepted. Until it has asked for an
association and was admitted it is a pending connection: it has a deadline, and there may be a few
only of one address, and a limited number in all.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from core.callers import source_of
from receiver.pdu import USER_ABORT, ConnectionLost, NoRequest, end_with, read_associate_request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.callers import CallerRule
    from receiver.refusals import Refusals

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 10.0
"""Longest time from the connection to a complete TLS handshake, and from there to a complete
A-ASSOCIATE-RQ."""
_BACKLOG: Final = 128
_ACCEPT_TIMEOUT_S: Final = 0.2
_AFTER_ERROR_S: Final = 0.1


class PendingConnections:
    """The pending connections of one process, limited by address and in all.

    Addresses that may associate and others are limited apart, so that strangers at any number of
    addresses do not keep out a sender.

    Parameters
    ----------
    per_address : int
        Most that one address, or one IPv6 /64 network, may hold.
    in_all : int
        Most that all the addresses that may associate hold together, and all the others.
    rules : sequence of CallerRule
        Addresses that may associate.
    """

    def __init__(self, per_address: int, in_all: int, rules: Sequence[CallerRule]) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._rules = rules
        self._counts: Counter[str] = Counter()
        self._n_listed = {True: 0, False: 0}
        self._lock = threading.Lock()

    def begin(self, address: str) -> Pending | str:
        """Count a connection, or return the reason for refusing it."""
        source = source_of(address, self._rules)
        is_listed = any(rule.contains(address) for rule in self._rules)
        with self._lock:
            if self._counts[source] >= self._per_address:
                return "too-many-connections"
            if self._n_listed[is_listed] >= self._in_all:
                return "too-many-connections-in-all"
            self._counts[source] += 1
            self._n_listed[is_listed] += 1
        return Pending(partial(self._end, source, is_listed))

    def _end(self, source: str, is_listed: bool) -> None:
        with self._lock:
            self._n_listed[is_listed] -= 1
            self._counts[source] -= 1
            if not self._counts[source]:
                del self._counts[source]


class Pending:
    """One pending connection.

    Parameters
    ----------
    on_end : callable
        Called once, when it is no longer pending.
    """

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end: Callable[[], None] | None = on_end

    def end(self) -> None:
        """Count it no longer: it is admitted or closed; may be called again."""
        if self._on_end is not None:
            self._on_end()
            self._on_end = None


class Listener:
    """Accepts the connections of one port.

    Parameters
    ----------
    host : str
    port : int
    serve : callable
        Serves a connection to its end; is given it, the peer's address, its A-ASSOCIATE-RQ, and
        what to call when it is admitted.
    refusals : Refusals
    pending : PendingConnections
        More are closed: anyone who reaches the port can open them, and each costs a thread and a
        socket. A refused one is pending until it is closed.
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
        serve: Callable[[socket.socket, str, bytes, Callable[[], None]], None],
        refusals: Refusals,
        pending: PendingConnections,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        tls: Callable[[], ssl.SSLContext] | None = None,
        is_shared: bool = False,
    ) -> None:
        self._serve = serve
        self._refusals = refusals
        self._pending = pending
        self._timeout_s = timeout_s
        self._tls = tls
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
        pending = self._pending.begin(peer_address)
        if isinstance(pending, str):
            connection.close()
            self._refuse(pending, peer_address)
            return
        try:
            # A response must not wait for the sender's delayed acknowledgement.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            threading.Thread(
                target=self._run,
                args=(connection, peer_address, pending),
                name="association",
                daemon=True,
            ).start()
        except Exception:  # the peer has gone already, or there are too many threads
            pending.end()
            raise

    def _run(self, connection: socket.socket, peer_address: str, pending: Pending) -> None:
        try:
            if self._tls is not None:
                connection = shake_hands(connection, self._tls(), self._timeout_s)
            request = self._read_request(connection, peer_address)
            if request is not None:
                self._serve(connection, peer_address, request, pending.end)
        except HandshakeFailed as error:
            self._refuse("tls-handshake-failed", peer_address, detail=str(error))
        except OSError as error:
            logger.warning("connection-lost errno=%s", error.errno)
        except Exception:  # an internal error must not leave the peer waiting
            logger.exception("connection-failed")
            end_with(connection, USER_ABORT)
        finally:
            connection.close()
            pending.end()

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

    def _refuse(self, reason: str, peer_address: str, **detail: str) -> None:
        self._refusals.count(
            "connection-refused", reason=reason, peer_address=peer_address, **detail
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
