"""An HL7 receiver by MLLP whose answers a test writes: the RIS on its bad days."""

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

_START, _END = b"\x0b", b"\x1c\r"


class Whim(Enum):
    """What the receiver does instead of answering."""

    HANG_UP = auto()
    FALL_SILENT = auto()
    ANSWER_GARBAGE = auto()
    ANSWER_ANOTHER = auto()
    """Accepted, but under the control id of another message."""
    BREAK_OFF = auto()
    """Before the end of the block."""
    DRIP = auto()
    """An answer that goes on, byte by byte, until `release` is set."""
    FLOOD = auto()
    """An answer that does not end."""
    ACCEPT_BYTE_BY_BYTE = auto()
    ACCEPT_LATE = auto()
    """When `release` is set."""


class ScriptedReceiver:
    """Answers each message with the next of `script`, and with AA when that is used up."""

    def __init__(self) -> None:
        self.script: deque[str | Whim] = deque()
        """What to write into MSA-1 (HL7 table 0008), and whims."""
        self.messages: list[bytes] = []
        """Without the MLLP frame, repetitions included."""
        self.release = threading.Event()
        self.destination = Hl7Destination("127.0.0.1", 0)

    def serve(self, peer: socket.socket) -> None:
        """Take one message and answer it."""
        message = _read_block(peer)
        if message is None:  # connected and said nothing
            return
        self.messages.append(message)
        answer = self.script.popleft() if self.script else "AA"
        if isinstance(answer, Whim):
            self._indulge(peer, message, answer)
        else:
            peer.sendall(_acknowledge(message, answer))

    def _indulge(self, peer: socket.socket, message: bytes, whim: Whim) -> None:
        accepted = _acknowledge(message, "AA")
        match whim:
            case Whim.FALL_SILENT:
                self.release.wait(20)
            case Whim.DRIP:
                while not self.release.wait(0.05):
                    peer.sendall(_START)
            case Whim.FLOOD:
                while not self.release.is_set():
                    peer.sendall(_START * 4096)
            case Whim.ACCEPT_BYTE_BY_BYTE:
                for byte in accepted:
                    peer.sendall(bytes([byte]))
                    time.sleep(0.001)
            case Whim.ACCEPT_LATE:
                self.release.wait(20)
                peer.sendall(accepted)
            case Whim.ANSWER_GARBAGE:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            case Whim.ANSWER_ANOTHER:
                peer.sendall(_acknowledge(message, "AA", control_id=b"OTHER"))
            case Whim.BREAK_OFF:
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
    """Acknowledge as a careless RIS does: with the patient's name in what people read."""
    fields = message.split(b"\r")[0].split(b"|")
    lines = [
        b"MSH|^~\\&|RIS||EPVSNODE||20260302110534||ACK^R01^ACK|77|P|2.5.1",
        b"|".join([b"MSA", code.encode(), control_id or fields[9], b"Canary^Patient is unknown"]),
    ]
    if code != "AA":
        lines.append(b"ERR||PID^1^3|204^Unknown key identifier^HL70357|E||||Canary^Patient")
    return _START + b"".join(line + b"\r" for line in lines) + _END


@contextmanager
def scripted_receiver() -> Iterator[ScriptedReceiver]:
    """Run a receiver on a free port of the loopback address."""
    scripted = ScriptedReceiver()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the node may hang up first
                scripted.serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        host, port = server.server_address[:2]
        scripted.destination = Hl7Destination(str(host), port)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield scripted
        finally:
            scripted.release.set()
            server.shutdown()
