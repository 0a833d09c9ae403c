"""Messages to a syslog server, with a time limit.

The handler of the standard library has none while it connects, and hides its errors.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self
from urllib.parse import urlsplit

_PRIORITY: Final = 13 * 8 + 5
"""Facility 13 (log audit), severity 5 (notice): RFC 5424 section 6.2.1."""
_APP_NAME: Final = "epvs-node"
_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class SyslogServer:
    """Where syslog messages go.

    Parameters
    ----------
    scheme : str
        ``"udp"``, ``"tcp"`` or ``"unix"``.
    host : str
        Host name or address; for ``"unix"`` the path of the socket.
    port : int
        0 for ``"unix"``.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``udp://host:port``, ``tcp://host:port`` or ``unix:///path``.

        Raises
        ------
        ValueError
            The text has another form.
        """
        url = urlsplit(text)
        if url.scheme == "unix" and url.path and not url.netloc:
            return cls("unix", url.path, 0)
        if url.scheme in ("udp", "tcp") and url.hostname and url.port and not url.path:
            return cls(url.scheme, url.hostname, url.port)
        raise ValueError("must be udp://host:port, tcp://host:port or unix:///path/of/socket")

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def send(self, message: str) -> None:
        """Send one message of printable ASCII characters.

        UDP gives no sign that a server received it, and TCP only that it was reachable.

        Raises
        ------
        OSError
            The server cannot be reached within 3 s.
        """
        pid = os.getpid()
        if self.scheme == "unix":  # what a local syslog service expects: no time, no host name
            self._send_to_socket(f"<{_PRIORITY}>{_APP_NAME}[{pid}]: {message}".encode())
            return
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        header = f"<{_PRIORITY}>1 {moment} {socket.gethostname() or '-'} {_APP_NAME} {pid} - -"
        if self.scheme == "tcp":
            with socket.create_connection((self.host, self.port), _TIMEOUT_S) as connection:
                # Frames end with a line feed: RFC 6587 section 3.4.2.
                connection.sendall(f"{header} {message}\n".encode())
            return
        family, _, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[
            0
        ]
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as udp:
            udp.sendto(f"{header} {message}".encode(), address)

    def _send_to_socket(self, message: bytes) -> None:
        """Send to a Unix socket, which is of either kind."""
        for kind, end in ((socket.SOCK_DGRAM, b""), (socket.SOCK_STREAM, b"\n")):
            with closing(socket.socket(socket.AF_UNIX, kind)) as local:
                local.settimeout(_TIMEOUT_S)
                try:
                    local.connect(self.host)
                except OSError:
                    if kind == socket.SOCK_STREAM:
                        raise
                    continue
                local.sendall(message + end)
                return
