"""A node on several hosts, whose central services are started once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.servers.hosts import Network
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.redis import RedisServer
from tests.support.servers.site import PASSWORD, Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="package")
def network() -> Iterator[Network]:
    """The network, without hosts yet."""
    with Network() as made:
        yield made


@pytest.fixture(scope="package")
def central_postgres(network: Network) -> Iterator[PostgresServer]:
    """PostgreSQL on the central host."""
    server = PostgresServer(address=network.address, subnet=network.subnet)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="package")
def central_redis(
    network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """Redis on the central host, with a password."""
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(folder, address=network.address, password=PASSWORD)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def site(
    network: Network, central_postgres: PostgresServer, central_redis: RedisServer, tmp_path: Path
) -> Iterator[Site]:
    """A node of which only the central services run."""
    with central_redis.client() as client:
        client.flushall()
    made = Site(network, central_postgres, central_redis, tmp_path)
    yield made
    network.stop_hosts()
    made.engine.dispose()
