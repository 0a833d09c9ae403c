"""A node on several hosts: database and broker on the central host, the rest elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import select

from db import migrate
from db.models import Revision
from db.session import create_engine, unit_of_work
from tests.support.servers.ports import free_port
from tests.support.servers.scripted_worker import FOLDER_VARIABLE, Script

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tests.support.servers.hosts import Host, Network
    from tests.support.servers.postgres import PostgresServer
    from tests.support.servers.redis import RedisServer

PASSWORD: Final = "s3cret-of-the-broker"
LEASE_S: Final = 3.0
_TIMEOUT_S: Final = 90.0


class Site:
    """The central host's services, and how parts of the node are started on other hosts."""

    def __init__(
        self, network: Network, postgres: PostgresServer, redis: RedisServer, folder: Path
    ) -> None:
        self.network = network
        self.folder = folder
        self.script = Script(folder)
        self.receiver_port = free_port()
        name = postgres.create_database()
        url = postgres.url(name)
        migrate.upgrade(postgres.owner_url(name), runtime_url=url)
        self.engine: Engine = create_engine(url)
        self.settings: dict[str, Any] = {
            "data_dir": folder / "data",
            "database_url": url.replace("127.0.0.1", network.address),
            "broker_url": f"redis://:{PASSWORD}@{network.address}:{redis.port}/0",
            "triton_timeout_s": 5.0,
            "callers": f"*@{network.subnet}",
            "port": self.receiver_port,
            "lease_s": LEASE_S,
            "quiet_period_s": 1.0,
            "sweep_interval_s": 0.2,
            "network_timeout_s": 5.0,
            "spool_reserve_mb": 0,
        }

    def start(self, host: Host, *module: str, log: str, clock: str = "") -> Path:
        """Start a module of Python on a host; its clock is wrong by `clock`, e.g. ``+1h``."""
        path = self.folder / f"{log}.log"
        environment = {f"EPVS_{key.upper()}": str(value) for key, value in self.settings.items()}
        environment |= {FOLDER_VARIABLE: str(self.folder), "OMP_NUM_THREADS": "1"}
        if clock:
            environment |= {"LD_PRELOAD": _find_faketime(), "FAKETIME": clock}
            environment |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        host.start([sys.executable, "-m", *module], path, environment)
        return path

    def start_receiver(self, host: Host, log: str, clock: str = "") -> None:
        """Start a receiver and wait until it listens."""
        self.wait_for(self.start(host, "receiver", log=log, clock=clock), "listening")

    def start_worker(
        self,
        host: Host,
        queue: str,
        log: str,
        *,
        app: str = "tests.support.servers.scripted_worker",
        clock: str = "",
    ) -> Path:
        """Start a worker, by default one with a scripted pipeline; return its log."""
        options = ("--concurrency", "1", "--queues", queue, "--without-gossip", "--without-mingle")
        return self.start(host, "celery", "-A", app, "worker", *options, log=log, clock=clock)

    def revisions(self) -> list[Revision]:
        """All revisions of all studies."""
        with unit_of_work(self.engine, read_only=True) as session:
            return list(session.scalars(select(Revision).order_by(Revision.opened_at)))

    def wait_for_states(self, *states: str) -> None:
        """Wait until these are the states of all revisions."""
        self.wait(lambda: [row.state for row in self.revisions()] == list(states), states)

    def wait_for(self, log: Path, text: str) -> None:
        """Wait until a log has a text."""
        self.wait(lambda: text in log.read_text(), (log.name, text))

    def wait(self, condition: Any, what: object, every_s: float = 0.05) -> None:
        """Wait until `condition` holds."""
        end = time.monotonic() + _TIMEOUT_S
        while not condition():
            if time.monotonic() > end:
                logs = "".join(f"\n{p.name}:\n{p.read_text()[-3000:]}" for p in self.logs())
                pytest.fail(f"not within {_TIMEOUT_S:.0f} s: {what}{logs}")
            time.sleep(every_s)

    def logs(self) -> list[Path]:
        """Logs of everything that was started."""
        return sorted(self.folder.glob("*.log"))


def _find_faketime() -> str:
    """Path of the library; its command uses shared memory that is named by the process id."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.fail("faketime is not installed; `make test` installs it")
    return str(found[0])
