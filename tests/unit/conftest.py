"""Keeps servers and networks out of the unit tests; Python, a shell and loopback are allowed."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = {Path(sys.executable).name, "bash"}


@pytest.fixture(scope="module", autouse=True)
def no_servers() -> Iterator[None]:
    """Fail a test that starts another program or connects to another machine."""
    start, connect = subprocess.Popen.__init__, socket.socket.connect

    def start_python_or_shell(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        program = Path(args if isinstance(args, str) else args[0]).name
        assert program in PROGRAMS, f"{program}: tests that need it belong in tests/integration"
        start(self, args, *rest, **options)

    def connect_to_loopback(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            host = ipaddress.ip_address(socket.gethostbyname(address[0]))
            assert host.is_loopback, f"{host}: unit tests use no network"
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", start_python_or_shell)
        patch.setattr(socket.socket, "connect", connect_to_loopback)
        yield
