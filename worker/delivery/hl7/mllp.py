"""Delivery, network half of HL7: one message out, one answer back, by MLLP.

Minimal Lower Layer Protocol (HL7 Transport Specification: MLLP, release 1): a message stands
between a vertical tab and a file separator with a carriage return.
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
LONGEST_ANSWER: Final = 16 * 1024
"""In bytes; an acknowledgment has a few hundred, and reading one takes time that grows fast."""

_CONNECTION_TIMEOUT_S: Final = 10.0


def connect(destination: Hl7Destination, *, timeout_s: float) -> socket.socket:
    """Open a connection; the caller closes it.

    Raises
    ------
    Unavailable
        Nobody listens, or the host is not known.
    """
    try:
        return socket.create_connection(
            (destination.host, destination.port), timeout=min(_CONNECTION_TIMEOUT_S, timeout_s)
        )
    except (OSError, UnicodeError) as error:
        raise Unavailable(
            destination.name,
            f"no connection ({type(error).__name__})",
            "Check host and port, and that the receiver listens.",
        ) from None


def exchange(destination: Hl7Destination, message: bytes, *, timeout_s: float) -> bytes:
    """Send `message` and return what came back.

    Parameters
    ----------
    destination : Hl7Destination
    message : bytes
    timeout_s : float
        For taking the message off the network, and as much again for the whole answer.

    Raises
    ------
    Unavailable
        No connection, or no whole answer: the message may have arrived or not.
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
            raise Unavailable(destination.name, "the answer is not an MLLP block") from None


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
        if not received.startswith(START) or len(received) > LONGEST_ANSWER:
            raise ValueError
    return bytes(received[len(START) : end])
