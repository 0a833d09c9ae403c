"""TCP proxies: a listener in the middle, and the TLS side of a server that cannot do TLS."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.tls import Identity


class RecordingProxy:
    """Forwards connections to a port on loopback and records every byte.

    Parameters
    ----------
    target : int
        Port of the server.
    address : str
        On which the proxy listens.
    """

    def __init__(self, target: int, address: str = "127.0.0.1") -> None:
        self._target = target
        self._recorded = bytearray()
        self._listening = socket.create_server((address, 0))
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
        with client, self._connect() as server:
            answers = threading.Thread(target=self._forward, args=(server, client), daemon=True)
            answers.start()
            self._forward(client, server)
            answers.join()

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._target))

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._recorded += data
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class UnixSocketProxy(RecordingProxy):
    """Offers a server that listens on a Unix socket to other hosts.

    Parameters
    ----------
    path : str
    address : str
    """

    def __init__(self, path: str, address: str) -> None:
        super().__init__(0, address)
        self._path = path

    def _connect(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._path)
        return server


class TlsTerminator(RecordingProxy):
    """Takes connections over TLS from clients of the same authority; forwards the clear text.

    With `takes_anybody` it asks for no certificate, as an impostor would.
    """

    def __init__(self, target: int, identity: Identity, *, takes_anybody: bool = False) -> None:
        super().__init__(target)
        self._context = identity.server_context()
        if takes_anybody:
            self._context.verify_mode = ssl.CERT_NONE

    def _serve(self, client: socket.socket) -> None:
        with (
            suppress(OSError),
            self._context.wrap_socket(client, server_side=True) as secured,
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            while True:
                waiting = not secured.pending()
                ready = select.select([secured, server], [], [])[0] if waiting else [secured]
                for source, target in ((secured, server), (server, secured)):
                    if source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        self._recorded += data
                        target.sendall(data)


@contextmanager
def recording_proxy(target: int) -> Iterator[RecordingProxy]:
    """Run a proxy in front of a port on loopback."""
    with _running(RecordingProxy(target)) as proxy:
        yield proxy


@contextmanager
def unix_socket_proxy(path: str, address: str) -> Iterator[RecordingProxy]:
    """Run a proxy in front of a Unix socket."""
    with _running(UnixSocketProxy(path, address)) as proxy:
        yield proxy


@contextmanager
def tls_terminator(
    target: int, identity: Identity, *, takes_anybody: bool = False
) -> Iterator[RecordingProxy]:
    """Run the TLS side of a server on loopback."""
    with _running(TlsTerminator(target, identity, takes_anybody=takes_anybody)) as proxy:
        yield proxy


@contextmanager
def _running(proxy: RecordingProxy) -> Iterator[RecordingProxy]:
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
