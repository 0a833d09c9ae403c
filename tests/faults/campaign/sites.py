"""The two sites: one machine with SQLite; hosts with PostgreSQL."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psutil

from db import migrate
from db.session import create_engine
from tests.faults.campaign.disks import fill, small_disk
from tests.faults.campaign.schedule import Kind
from tests.faults.campaign.site import COMMON, Site
from tests.support.servers.hosts import Network
from tests.support.servers.ports import free_port
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.proxies import unix_socket_proxy
from tests.support.servers.site import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable


_DATABASE_DISK_MB: Final = 1536


class EmbeddedSite(Site):
    """One machine, SQLite, one of each process."""

    def _start(self) -> None:
        self._add_redis()
        port = free_port()
        self.receivers = [("127.0.0.1", port)]
        self._add_archives("127.0.0.1", (str(self.settings["ae_title"]), port))
        url = f"sqlite:///{self.data_dir / 'epvs.sqlite'}"
        migrate.upgrade(url)
        # The archive reports commitments on associations of its own.
        self.settings |= {
            "database_url": url,
            "broker_url": self.redis.url,
            "host": "127.0.0.1",
            "port": port,
            "callers": "*@127.0.0.1",
        }
        if self._with_models:
            self.settings["triton_url"] = self._start_triton()
        self.engine = create_engine(url)
        self._cleanup.callback(self.engine.dispose)
        self._cleanup.callback(self.stop_parts)
        self._add("receiver", "receiver")
        self._add("housekeeper", "worker.housekeeper")
        self._add_worker("worker")
        if self._with_models:
            self._add_worker_with_models()


class HostsSite(Site):
    """Two hosts with receivers, two with workers and housekeepers; PostgreSQL and Redis central."""

    kinds = (
        *COMMON,
        Kind.HOST_CUT,
        Kind.DATABASE_STOPPED,
        Kind.DATABASE_BACKEND_KILLED,
        Kind.DATABASE_PAUSED,
        Kind.DATABASE_FULL,
    )

    def begin(self, kind: Kind, number: int) -> Callable[[], bool] | None:
        """Cause a fault, also of hosts and PostgreSQL."""
        match kind:
            case Kind.HOST_CUT:
                host = self._hosts[number % len(self._hosts)]
                return self._exclusively(host.address, host.cut, host.reconnect)
            case Kind.DATABASE_STOPPED:
                return self._exclusively("database", self.postgres.crash, self.postgres.start)
            case Kind.DATABASE_BACKEND_KILLED:
                return self._kill_backend(number)
            case Kind.DATABASE_PAUSED:
                return self._pause("database", self._database_processes)
            case Kind.DATABASE_FULL:
                return self._fill_database()
        return super().begin(kind, number)

    def _start(self) -> None:
        network = self._cleanup.enter_context(Network())
        self._add_redis(address=network.address, password=PASSWORD)
        self._database_disk = self.folder.parent / f"{self.folder.name}-database"
        self._cleanup.enter_context(small_disk(self._database_disk, _DATABASE_DISK_MB))
        self._database_disk.chmod(0o755)
        self.postgres = PostgresServer(
            address=network.address, subnet=network.subnet, parent=self._database_disk
        )
        self._cleanup.callback(self.postgres.remove)
        self.postgres.start()
        name = self.postgres.create_database()
        url = self.postgres.url(name)
        migrate.upgrade(self.postgres.owner_url(name), runtime_url=url)
        self._hosts = [network.add_host() for _ in range(4)]
        port = free_port()
        self.receivers = [(host.address, port) for host in self._hosts[:2]]
        self._add_archives(network.address, None)
        self.settings |= {
            "database_url": url.replace("127.0.0.1", network.address),
            "broker_url": f"redis://:{PASSWORD}@{network.address}:{self.redis.port}/0",
            "port": port,
            "callers": f"*@{network.subnet}",
        }
        if self._with_models:
            path = self._start_triton().removeprefix("unix:")
            proxy = self._cleanup.enter_context(unix_socket_proxy(path, network.address))
            self.settings["triton_url"] = f"{network.address}:{proxy.port}"
        self.engine = create_engine(url)
        self._cleanup.callback(self.engine.dispose)
        self._cleanup.callback(self.stop_parts)
        for number, host in enumerate(self._hosts[:2]):
            self._add(f"receiver-{number}", "receiver", host=host)
        for number, host in enumerate(self._hosts[2:]):
            self._add(f"housekeeper-{number}", "worker.housekeeper", host=host)
            self._add_worker(f"worker-{number}", host)
        if self._with_models:
            self._add_worker_with_models(self._hosts[2])

    def _database_processes(self) -> list[psutil.Process]:
        main = psutil.Process(self.postgres.pid)
        return [main, *main.children(recursive=True)]

    def _kill_backend(self, number: int) -> Callable[[], bool] | None:
        if "database" in self._busy:
            return None
        backends = [
            each for each in self._database_processes() if "epvs_node" in " ".join(each.cmdline())
        ]
        if not backends:
            return None
        with suppress(psutil.NoSuchProcess):
            backends[number % len(backends)].kill()
        return lambda: True

    def _fill_database(self) -> Callable[[], bool] | None:
        ballast = self._database_disk / "ballast"

        def mend() -> None:
            ballast.unlink()
            if not self.postgres.is_running():  # without space for its log it may end
                self.postgres.start()

        return self._exclusively("database", lambda: fill(ballast), mend)
