"""Embedded stack: what it tells systemd, when a unit of Type=notify runs it."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

_TIMEOUT_S: Final = 1.0


def notify(state: str) -> None:
    """Send a state, e.g. ``READY=1``, as sd_notify(3) describes; without systemd, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # a socket in the abstract namespace
        address = "\0" + address[1:]
    # A service manager that restarts, or reads nothing, must not end or stop the node.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(_TIMEOUT_S)
        client.sendto(state.encode(), address)
