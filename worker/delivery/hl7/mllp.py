"""MLLP client: sends one HL7 message and reads the response.

Minimal Lower Layer Protocol (HL7 Transport Specification: MLLP, release 1): a message is framed by
a vertical tab before it and a file separator and carriage return after it.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final

from core.errors import Unavailable

if TYPE_CHECKING:
    from core.destinations import Hl7Destination

START: Final = b"\x0b"
END: Final = b"\x1c\r"
MAXIMUM_RESPONSE_BYTES: Final = 16 * 1024
"""An acknowledgment has a few hundred; parsing time grows faster than the length."""

_CONNECTION_TIMEOUT_S: Final = 10.0


def connect(destination: Hl7Destination, *, timeout_s: float) -> socket.socket:
    """Open a connection; the caller closes it.

    Raises
    ------
    Unavailable
        No process listens there, or the host is unknown.
    """
    try:
        return socket.create_connection(
            (destination.host, destination.port), timeout=min(_CONNECTION_TIMEOUT_S, timeout_s)
        )
    except (OSError, UnicodeError) as error:
        raise Unavailable(
            destination.name,
            f"no connection ({type(error).__name__})",
            "Check host and port, and that the receiver is listening.",
        ) from None


def exchange(destination: Hl7Destination, message: bytes, *, timeout_s: float) -> bytes:
    """Send `message` and return the response.

    Parameters
    ----------
    destination : Hl7Destination
    message : bytes
    timeout_s : float
        For sending the message, and as much again for receiving the whole response.

    Raises
    ------
    Unavailable
        No connection, or no complete response: whether the message arrived is unknown.
    """
    with connect(destination, timeout_s=timeout_s) as peer:
        try:
            peer.settimeout(timeout_s)
            peer.sendall(START + message + END)
            return _read_block(peer, time.monotonic() + timeout_s)
        except TimeoutError:
            raise Unavailable(destination.name, "no acknowledgment in time") from None
        except OSError as error:
            raise Unavailable(
                destination.name, f"no acknowledgment ({type(error).__name__})"
            ) from None
        except ValueError:
            raise Unavailable(destination.name, "the response is not an MLLP block") from None


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
