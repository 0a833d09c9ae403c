"""An HL7 receiver over MLLP whose acknowledgments, and faults, are scripted by a test."""

from __future__ import annotations

import socketserver
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from enum import Enum, auto
from typing import TYPE_CHECKING

from core.destinations import Hl7Destination

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from core.tls import Identity

_START, _END = b"\x0b", b"\x1c\r"


class Fault(Enum):
    """A fault of the receiver in place of an acknowledgment."""

    HANG_UP = auto()
    FALL_SILENT = auto()
    ANSWER_GARBAGE = auto()
    ANSWER_ANOTHER = auto()
    """AA with the control ID of another message."""
    BREAK_OFF = auto()
    """Close the connection before the end of the block."""
    DRIP = auto()
    """Send one byte after another until `release` is set."""
    FLOOD = auto()
    """Send without end."""
    ACCEPT_BYTE_BY_BYTE = auto()
    ACCEPT_LATE = auto()
    """AA once `release` is set."""


class ScriptedReceiver:
    """Acknowledges each message with the next item of `script`; AA once it is empty."""

    def __init__(self) -> None:
        self.script: deque[str | Fault] = deque()
        """Values of MSA-1 (HL7 table 0008) and faults."""
        self.messages: list[bytes] = []
        """Without the MLLP frame, resends included."""
        self.release = threading.Event()
        self.destination = Hl7Destination("127.0.0.1", 0)

    def serve(self, peer: socket.socket) -> None:
        """Receive one message and acknowledge it."""
        message = _read_block(peer)
        if message is None:  # connected and sent nothing
            return
        self.messages.append(message)
        answer = self.script.popleft() if self.script else "AA"
        if isinstance(answer, Fault):
            self._fail(peer, message, answer)
        else:
            peer.sendall(_acknowledge(message, answer))

    def _fail(self, peer: socket.socket, message: bytes, fault: Fault) -> None:
        accepted = _acknowledge(message, "AA")
        match fault:
            case Fault.FALL_SILENT:
                self.release.wait(20)
            case Fault.DRIP:
                while not self.release.wait(0.05):
                    peer.sendall(_START)
            case Fault.FLOOD:
                while not self.release.is_set():
                    peer.sendall(_START * 4096)
            case Fault.ACCEPT_BYTE_BY_BYTE:
                for byte in accepted:
                    peer.sendall(bytes([byte]))
                    time.sleep(0.001)
            case Fault.ACCEPT_LATE:
                self.release.wait(20)
                peer.sendall(accepted)
            case Fault.ANSWER_GARBAGE:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            case Fault.ANSWER_ANOTHER:
                peer.sendall(_acknowledge(message, "AA", control_id=b"OTHER"))
            case Fault.BREAK_OFF:
                peer.sendall(accepted.removesuffix(_END))


def _read_block(peer: socket.socket) -> bytes | None:
    received = b""
    while not received.endswith(_END):
        chunk = peer.recv(4096)
        if not chunk:
            return None
        received += chunk
    assert received.startswith(_START)
    return received.removeprefix(_START).removesuffix(_END)


def _acknowledge(message: bytes, code: str, *, control_id: bytes = b"") -> bytes:
    """Acknowledge with the patient's name in the human-readable fields, as some systems do."""
    fields = message.split(b"\r")[0].split(b"|")
    lines = [
        b"MSH|^~\\&|RIS||EPVSNODE||20260302110534||ACK^R01^ACK|77|P|2.5.1",
        b"|".join([b"MSA", code.encode(), control_id or fields[9], b"Canary^Patient is unknown"]),
    ]
    if code != "AA":
        lines.append(b"ERR||PID^1^3|204^Unknown key identifier^HL70357|E||||Canary^Patient")
    return _START + b"".join(line + b"\r" for line in lines) + _END


@contextmanager
def scripted_receiver(identity: Identity | None = None) -> Iterator[ScriptedReceiver]:
    """Run a receiver on a free loopback port.

    With an `identity` it accepts only TLS, and only clients with a certificate of the same
    authority; its destination has ``localhost`` and ``tls=1``.
    """
    scripted = ScriptedReceiver()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the node may close the connection first
                if identity is None:
                    scripted.serve(self.request)
                    return
                context = identity.server_context()
                with context.wrap_socket(self.request, server_side=True) as secured:
                    scripted.serve(secured)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        host, port = server.server_address[:2]
        scripted.destination = Hl7Destination(
            str(host) if identity is None else "localhost", port, tls=identity is not None
        )
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield scripted
        finally:
            scripted.release.set()
            server.shutdown()
