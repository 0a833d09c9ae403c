"""A listener in the middle: a TCP proxy that records every byte that passes it."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class RecordingProxy:
    """Forwards connections to a port on loopback.

    Parameters
    ----------
    target : int
        Port of the server.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._recorded = bytearray()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    @property
    def recorded(self) -> bytes:
        """All bytes so far, in both directions."""
        return bytes(self._recorded)

    def start(self) -> None:
        """Begin to accept connections."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            answers = threading.Thread(target=self._forward, args=(server, client), daemon=True)
            answers.start()
            self._forward(client, server)
            answers.join()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._recorded += data
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def recording_proxy(target: int) -> Iterator[RecordingProxy]:
    """Run a proxy in front of a port on loopback."""
    proxy = RecordingProxy(target)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
