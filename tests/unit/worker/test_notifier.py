"""Notifying workers while the broker fails."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest

from core.errors import Unavailable
from db.enums import OutboxKind
from db.outbox import OutboxItem
from worker.notifier import notify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RESET = struct.pack("ii", 1, 0)


def _reset(peer: socket.socket) -> None:
    """End the connection as a killed server does whose client has just written."""
    peer.recv(1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _hang_up(peer: socket.socket) -> None:
    peer.recv(1000)


def _talk_nonsense(peer: socket.socket) -> None:
    peer.recv(1000)
    peer.sendall(b"220 ready\r\n")


def _agree(peer: socket.socket) -> None:
    """Confirm every command of one connection."""
    while commands := peer.recv(10_000):
        for command in commands.split(b"*")[1:]:
            peer.sendall(b"%1\r\n+proto\r\n:3\r\n" if b"HELLO" in command else b"+PONG\r\n")


@contextmanager
def _broker(answer: Callable[[socket.socket], None], n_good: int) -> Iterator[str]:
    """Run a broker that fails after `n_good` connections."""

    def handle(peer: socket.socket, number: int) -> None:
        with peer, suppress(OSError):
            (_agree if number < n_good else answer)(peer)

    def serve() -> None:
        with suppress(OSError), ExitStack() as stack:
            for number in count():
                peer, _ = listener.accept()
                thread = threading.Thread(target=handle, args=(peer, number))
                thread.start()
                stack.callback(thread.join, 10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("n_good", [0, 1])
@pytest.mark.parametrize("answer", [_reset, _hang_up, _talk_nonsense])
def test_a_broker_that_fails_during_a_connection_is_unavailable(
    answer: Callable[[socket.socket], None], n_good: int
) -> None:
    """The first connection, which kombu makes to try it, or the next, which it then uses."""
    with _broker(answer, n_good) as url, pytest.raises(Unavailable, match="broker"):
        notify([OutboxItem(1, OutboxKind.REVISION, "0" * 32)], url)
