"""Free ports for servers that a test starts."""

from __future__ import annotations

import random
import socket
from typing import Final

_RANDOM: Final = random.SystemRandom()
_RANGE: Final = range(10_000, 32_000)
"""Below Linux's range of ephemeral ports, from which every outgoing connection takes one: a port
from there might be in use again by the time the server binds it."""


def free_port() -> int:
    """Return a loopback port on which nothing listens."""
    while True:
        port = _RANDOM.choice(_RANGE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
