"""A real Redis on loopback: the one of the embedded stack."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import redis

from node.embedded.servers import Servers
from tests.support.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class RedisServer:
    """A redis-server process without persistence: a restart loses everything.

    With an `address` it also listens there, and all clients need the `password`.
    """

    def __init__(self, folder: Path, *, address: str = "", password: str = "") -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._password = password
        self._options = ["--bind", "127.0.0.1", address] if address else ["--bind", "127.0.0.1"]
        if password:
            self._options += ["--requirepass", password]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start on the same port as before and wait until it responds."""
        self._process = subprocess.Popen(
            [
                str(Servers.find().redis_program),
                *("--port", str(self.port), *self._options, "--save", ""),
                *("--dir", str(self._folder), "--loglevel", "warning"),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start: {self._process.poll()}")
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill the server, as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> redis.Redis:
        """Client with its own connection."""
        return redis.Redis(port=self.port, password=self._password or None, socket_timeout=5)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running Redis server for one test."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()
