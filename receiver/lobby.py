"""Receiving: connections wait on one thread, together, until their first message is there.

Whoever may reach the port may connect and say nothing, or one byte a second. To pynetdicom each
connection is two threads from its first moment on; here it is a socket in a list until all of its
A-ASSOCIATE-RQ (or TLS ClientHello) can be read at once, and no longer than a deadline.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import socket
import struct
import termios
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_LONGEST_BYTES: Final = 32 * 1024
"""A longer first message is not waited for: it may exceed what the kernel would buffer."""
_ENDED: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
_AFTER_FAULT_S: Final = 0.1
_EVENTS: Final = select.POLLIN | getattr(select, "POLLRDHUP", 0)


@dataclass(frozen=True, slots=True)
class Opening:
    """How long the first message of a protocol is, as its first bytes say."""

    header_bytes: int
    length: Callable[[bytes], int]
    """Bytes of the whole message, from its header."""


DICOM: Final = Opening(6, lambda header: 6 + int.from_bytes(header[2:6], "big"))
"""A PDU (PS3.8 section 9.3.1)."""
TLS: Final = Opening(5, lambda header: 5 + int.from_bytes(header[3:5], "big"))
"""A record (RFC 8446 section 5.1)."""


@dataclass(slots=True)
class _Guest:
    connection: socket.socket
    address: Any
    deadline: float
    wanted_bytes: int


class Lobby:
    """Where connections wait.

    Parameters
    ----------
    opening : Opening
        What is waited for.
    admit, dismiss, expire : callable
        Take the connection and its address: where the message has come; where it cannot come any
        more; where it has not come in time. Called on the lobby's thread; they must not block.
    deadline_s : float
        How long a connection may wait.
    """

    def __init__(
        self,
        opening: Opening,
        admit: Callable[[socket.socket, Any], None],
        dismiss: Callable[[socket.socket, Any], None],
        expire: Callable[[socket.socket, Any], None],
        deadline_s: float,
    ) -> None:
        self._opening = opening
        self._admit, self._dismiss, self._expire = admit, dismiss, expire
        self._deadline_s = deadline_s
        self._guests: dict[int, _Guest] = {}
        self._registered: set[int] = set()
        """Descriptors that are polled; one that has gone may soon be of another connection."""
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._ring, False)
        self._poll.register(self._bell, select.POLLIN)
        self._is_open = True
        threading.Thread(target=self._run, name="lobby", daemon=True).start()

    def enter(self, connection: socket.socket, address: Any) -> None:
        """Let a connection wait."""
        guest = _Guest(
            connection,
            address,
            time.monotonic() + self._deadline_s,
            self._opening.header_bytes,
        )
        _wake_at(connection, guest.wanted_bytes)
        with self._lock:
            self._guests[connection.fileno()] = guest
        self._wake()

    def count(self, host: str) -> int:
        """How many connections from this address wait."""
        with self._lock:
            return sum(guest.address[0] == host for guest in self._guests.values())

    def close(self) -> None:
        """Close every connection that waits."""
        self._is_open = False
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # the thread has been rung for often enough
            os.write(self._ring, b"\0")

    def _run(self) -> None:
        while self._is_open:
            try:
                self._wait_and_look()
            except Exception:  # without this thread nobody would get in any more
                logger.exception("lobby-failed")
                time.sleep(_AFTER_FAULT_S)
        for descriptor in self._waiting_until(float("inf")):
            self._see_off(descriptor, self._dismiss)

    def _wait_and_look(self) -> None:
        with self._lock:
            for descriptor in self._guests.keys() - self._registered:
                self._poll.register(descriptor, _EVENTS)
                self._registered.add(descriptor)
        for descriptor, events in self._poll.poll(self._until_next_deadline()):
            if descriptor == self._bell:
                os.read(self._bell, 4096)
            elif descriptor in self._registered:
                self._look(descriptor, events)
        for descriptor in self._waiting_until(time.monotonic()):
            self._see_off(descriptor, self._expire)

    def _waiting_until(self, moment: float) -> list[int]:
        """Descriptors of those whose deadline has come by then."""
        with self._lock:
            return [each for each, guest in self._guests.items() if guest.deadline <= moment]

    def _until_next_deadline(self) -> float | None:
        """Milliseconds."""
        with self._lock:
            deadlines = [guest.deadline for guest in self._guests.values()]
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 if deadlines else None

    def _look(self, descriptor: int, events: int) -> None:
        """See what has come of a connection's first message."""
        guest = self._guests[descriptor]
        try:
            available = _readable_bytes(guest.connection)
            if available < guest.wanted_bytes and events & _ENDED:
                self._see_off(descriptor, self._dismiss)
                return
            if available >= guest.wanted_bytes == self._opening.header_bytes:
                header = guest.connection.recv(self._opening.header_bytes, socket.MSG_PEEK)
                guest.wanted_bytes = self._opening.length(header)
                if available < guest.wanted_bytes <= _LONGEST_BYTES:
                    _wake_at(guest.connection, guest.wanted_bytes)
                    return
            # Fewer bytes than were asked for: the kernel is short of memory, and will not wait.
            _wake_at(guest.connection, 1)
        except OSError:
            self._see_off(descriptor, self._dismiss)
        else:
            self._see_off(descriptor, self._admit)

    def _see_off(self, descriptor: int, take: Callable[[socket.socket, Any], None]) -> None:
        if descriptor in self._registered:
            self._poll.unregister(descriptor)
            self._registered.discard(descriptor)
        with self._lock:
            guest = self._guests.pop(descriptor)
        try:
            take(guest.connection, guest.address)
        except Exception:  # whatever happens to one connection is no reason to leave the others
            logger.exception("connection-failed")
            guest.connection.close()


def _wake_at(connection: socket.socket, n_bytes: int) -> None:
    """Let the kernel report the connection as readable once so many bytes are there, or its end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, n_bytes)


def _readable_bytes(connection: socket.socket) -> int:
    answer = fcntl.ioctl(connection, termios.FIONREAD, struct.pack("i", 0))
    (n_bytes,) = struct.unpack("i", answer)
    return int(n_bytes)
