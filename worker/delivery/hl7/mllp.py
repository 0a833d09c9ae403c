"""MLLP client: sends one HL7 message and reads the response.

Minimal Lower Layer Protocol (HL7 Transport Specification: MLLP, release 1): a message is framed by
a vertical tab before it and a file separator and carriage return after it.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final

from core.errors import Unavailable
from core.tls import client_context_to, failure

if TYPE_CHECKING:
    from core.destinations import Hl7Destination
    from core.tls import Identity

START: Final = b"\x0b"
END: Final = b"\x1c\r"
MAXIMUM_RESPONSE_BYTES: Final = 16 * 1024
"""An acknowledgment has a few hundred; parsing time grows faster than the length."""

_CONNECTION_TIMEOUT_S: Final = 10.0
_REFUSAL_S: Final = 1.0


class NoAcknowledgmentError(Unavailable):
    """The receiver was reached and sent no complete response."""


def connect(
    destination: Hl7Destination, identity: Identity | None, *, timeout_s: float
) -> socket.socket:
    """Open a connection, over TLS if the destination says so; the caller closes it.

    Raises
    ------
    Unavailable
        No process listens there, the host is unknown, or one side does not accept the other's
        certificate.
    ConfigurationError
        The destination requires TLS, and `identity` is missing or cannot be used.
    """
    timeout_s = min(_CONNECTION_TIMEOUT_S, timeout_s)
    tls = client_context_to(destination.name, identity) if destination.tls else None
    try:
        peer = socket.create_connection((destination.host, destination.port), timeout=timeout_s)
    except (OSError, UnicodeError) as error:
        raise Unavailable(
            destination.name,
            f"no connection ({type(error).__name__})",
            "Check host and port, and that the receiver is listening.",
        ) from None
    if tls is None:
        return peer
    name = destination.tls_name or destination.host
    try:
        return tls.wrap_socket(peer, server_hostname=name)
    except OSError as error:
        peer.close()
        raise Unavailable(
            destination.name,
            f"no TLS connection ({failure(error)})",
            f"Its certificate must state the name {name} and be signed by one of "
            "EPVS_TLS_AUTHORITIES, and it must accept this node's certificate.",
        ) from None


def probe(destination: Hl7Destination, identity: Identity | None, *, timeout_s: float) -> None:
    """Connect without sending anything.

    Raises
    ------
    Unavailable
        As `connect` does, also where the receiver refuses this node's certificate.
    ConfigurationError
        As `connect` does.
    """
    with connect(destination, identity, timeout_s=timeout_s) as peer:
        if destination.tls:
            _wait_for_refusal(destination, peer)


def _wait_for_refusal(destination: Hl7Destination, peer: socket.socket) -> None:
    """Wait for what TLS 1.3 tells a client only after its own handshake has ended."""
    peer.settimeout(_REFUSAL_S)
    try:
        if peer.recv(1):
            return
    except TimeoutError:
        return
    except OSError as error:
        reason = failure(error)
    else:
        reason = "closed at once"
    raise Unavailable(
        destination.name,
        f"no TLS connection ({reason})",
        "The receiver must accept this node's certificate, EPVS_TLS_CERTIFICATE.",
    )


def exchange(
    destination: Hl7Destination, identity: Identity | None, message: bytes, *, timeout_s: float
) -> bytes:
    """Send `message` and return the response.

    Parameters
    ----------
    destination : Hl7Destination
    identity : Identity or None
        Certificate and key of the node, for a destination that is reached over TLS.
    message : bytes
    timeout_s : float
        For sending the message, and as much again for receiving the whole response.

    Raises
    ------
    Unavailable
        No connection.
    NoAcknowledgmentError
        No complete response: whether the message arrived is unknown.
    ConfigurationError
        The destination requires TLS, and `identity` is missing or cannot be used.
    """
    with connect(destination, identity, timeout_s=timeout_s) as peer:
        try:
            peer.settimeout(timeout_s)
            peer.sendall(START + message + END)
            return _read_block(peer, time.monotonic() + timeout_s)
        except TimeoutError:
            raise NoAcknowledgmentError(destination.name, "no acknowledgment in time") from None
        except OSError as error:
            raise NoAcknowledgmentError(
                destination.name, f"no acknowledgment ({failure(error)})"
            ) from None
        except ValueError:
            raise NoAcknowledgmentError(
                destination.name, "the response is not an MLLP block"
            ) from None


def _read_block(peer: socket.socket, deadline: float) -> bytes:
    received = bytearray()
    while (end := received.find(END)) < 0:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        peer.settimeout(remaining_s)
        chunk = peer.recv(4096)
        if not chunk:
            raise ConnectionResetError
        received += chunk
        if not received.startswith(START) or len(received) > MAXIMUM_RESPONSE_BYTES:
            raise ValueError
    return bytes(received[len(START) : end])
