"""The site of several hosts: PostgreSQL, and each process under the campaign's own supervision."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psutil

from core import queues
from db import migrate
from db.session import create_engine
from node.embedded.triton import EmbeddedTriton
from tests.faults.campaign.disks import fill, small_disk
from tests.faults.campaign.schedule import Kind
from tests.faults.campaign.site import COMMON, Site
from tests.support.servers.hosts import Network
from tests.support.servers.ports import free_port
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.proxies import unix_socket_proxy
from tests.support.servers.receiver import wait_until
from tests.support.servers.redis import RedisServer
from tests.support.servers.site import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.support.servers.hosts import Host

_DATABASE_DISK_MB: Final = 1536


class HostsSite(Site):
    """Two hosts with receivers, two with workers and housekeepers; PostgreSQL and Redis central.

    Grading is scripted, except for what a worker with the models takes.
    """

    triton: EmbeddedTriton | None = None

    kinds: tuple[Kind, ...] = (
        *COMMON,
        Kind.REDIS_LOST,
        Kind.HOST_CUT,
        Kind.DATABASE_STOPPED,
        Kind.DATABASE_BACKEND_KILLED,
        Kind.DATABASE_PAUSED,
        Kind.DATABASE_FULL,
    )

    def begin(self, kind: Kind, number: int) -> Callable[[], bool] | None:
        """Cause a fault, also of hosts, PostgreSQL and Redis."""
        match kind:
            case Kind.REDIS_LOST:
                return self._exclusively("Redis", self._redis.kill, self._redis.start)
            case Kind.TRITON_KILLED:
                return self._kill_triton()
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
        self._redis = RedisServer(self.folder, address=network.address, password=PASSWORD)
        self._redis.start()
        self._cleanup.callback(self._redis.kill)
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
            "broker_url": f"redis://:{PASSWORD}@{network.address}:{self._redis.port}/0",
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
            self._add_worker(f"worker-{number}", queues.GRADING, host)
            self._add_worker(f"delivery-{number}", queues.DELIVERY, host)
        if self._with_models:
            self._add_worker("worker-models", queues.GRADING, self._hosts[2], "worker.app")

    def redis_client(self) -> redis.Redis:
        """Client of the broker, with its own connection."""
        return self._redis.client()

    def _are_workers_ready(self) -> bool:
        workers = [part for part in self.parts if part.name.startswith(("worker", "delivery"))]
        return all(" ready" in self.log(part.name).read_text() for part in workers)

    def _add_worker(
        self, name: str, queue: str, host: Host, module: str = "tests.faults.campaign.worker"
    ) -> None:
        processes = "1" if module == "worker.app" else "2"
        options = ("--queues", queue, "--hostname", f"{name}@%h", "--concurrency", processes)
        more = ("--without-gossip", "--without-mingle")
        self._add(name, "celery", "-A", module, "worker", *options, *more, host=host)

    def _redis_processes(self) -> list[psutil.Process]:
        return [psutil.Process(self._redis.pid)]

    def _start_triton(self) -> str:
        """Start Triton; return its address on this machine."""
        self.triton = EmbeddedTriton(self.folder / "triton", self.folder / "triton.log")
        # It is killed with the thread that started it: one that lasts.
        self._starter = self._cleanup.enter_context(ThreadPoolExecutor(1))
        self._cleanup.callback(self.triton.stop)
        self._starter.submit(self._launch_triton).result()
        self.kinds = (*self.kinds, Kind.TRITON_KILLED, Kind.TRITON_PAUSED)
        return self.triton.url

    def _launch_triton(self) -> None:
        assert self.triton is not None
        self.triton.launch()
        wait_until(self.triton.is_ready, 240)

    def _triton_processes(self) -> list[psutil.Process]:
        assert self.triton is not None
        if self.triton.pid is None:
            return []
        main = psutil.Process(self.triton.pid)
        return [main, *main.children(recursive=True)]

    def _kill_triton(self) -> Callable[[], bool] | None:
        """Kill Triton; its start takes seconds, in which other faults begin and end."""
        triton, starts = self.triton, list[Future[None]]()
        assert triton is not None

        def kill() -> None:
            if triton.pid is not None:
                os.killpg(triton.pid, signal.SIGKILL)

        def restart() -> None:
            triton.stop()
            self._launch_triton()

        def mend() -> bool:
            if not starts:
                starts.append(self._starter.submit(restart))
            if starts[0].done():
                starts[0].result()
            return starts[0].done()

        return self._exclusively("Triton", kill, mend)

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
