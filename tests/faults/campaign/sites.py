"""The node under test: on one machine with SQLite, or on hosts with PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import psutil

from db import migrate
from db.session import create_engine
from tests.faults.campaign.archives import Archive
from tests.faults.campaign.parts import Part
from tests.faults.campaign.schedule import Kind
from tests.support.servers.destination import scripted_destination
from tests.support.servers.hosts import Network
from tests.support.servers.ports import free_port
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.receiver import accepts_connections
from tests.support.servers.redis import RedisServer
from tests.support.servers.scripted_worker import FOLDER_VARIABLE
from tests.support.servers.site import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from sqlalchemy import Engine

    from tests.support.servers.hosts import Host

_SETTINGS: Final[dict[str, Any]] = {
    "ae_title": "EPVSNODE",
    "lease_s": 5.0,
    "quiet_period_s": 1.0,
    "sweep_interval_s": 0.3,
    "network_timeout_s": 5.0,
    "commitment_timeout_s": 5.0,
    "spool_reserve_mb": 0,
    # Workers are killed every few seconds: three attempts would fail studies that do no harm.
    "max_attempts": 10,
}
_DISK_MB: Final = 512
_DATABASE_DISK_MB: Final = 1536
_COMMON: Final = (
    Kind.RECEIVER_KILLED,
    Kind.WORKER_KILLED,
    Kind.WORKER_CHILD_KILLED,
    Kind.WORKER_RESTARTED,
    Kind.HOUSEKEEPER_KILLED,
    Kind.REDIS_KILLED,
    Kind.REDIS_FLUSHED,
    Kind.REDIS_PAUSED,
    Kind.DISK_FULL,
)


class Site:
    """Node, broker, database and archives; a context manager that stops all of it.

    Parameters
    ----------
    folder : Path
        Gets logs and journals. The data folder in it is a small disk of its own.
    seed : int
        Of the archives.
    """

    kinds: tuple[Kind, ...] = _COMMON
    engine: Engine
    redis: RedisServer

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.data_dir = folder, folder / "data"
        self.settings: dict[str, Any] = {**_SETTINGS, "data_dir": self.data_dir}
        self.receivers: list[tuple[str, int]] = []
        self.parts: list[Part] = []
        self.archives: list[Archive] = []
        self._seed = seed
        self._cleanup = ExitStack()
        self._busy: set[str] = set()

    def __enter__(self) -> Self:
        try:
            self._cleanup.enter_context(small_disk(self.data_dir, _DISK_MB))
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def begin(self, kind: Kind, number: int) -> Callable[[], bool] | None:
        """Cause a fault; None if its target has one already, else what mends it."""
        match kind:
            case Kind.RECEIVER_KILLED:
                return self._kill(self._choose("receiver", number))
            case Kind.WORKER_KILLED:
                return self._kill(self._choose("worker", number))
            case Kind.WORKER_CHILD_KILLED:
                return self._kill_child(self._choose("worker", number), number)
            case Kind.WORKER_RESTARTED:
                return self._restart(self._choose("worker", number))
            case Kind.HOUSEKEEPER_KILLED:
                return self._kill(self._choose("housekeeper", number))
            case Kind.REDIS_KILLED:
                return self._exclusively("redis", self.redis.kill, self.redis.start)
            case Kind.REDIS_FLUSHED:
                return self._flush()
            case Kind.REDIS_PAUSED:
                return self._pause("redis", lambda: [psutil.Process(self.redis.pid)])
            case Kind.DISK_FULL:
                return self._fill("disk", self.data_dir)
        return None

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until every receiver listens and every worker has told so."""
        end = time.monotonic() + timeout_s
        workers = [part for part in self.parts if part.name.startswith("worker")]
        while not (
            all(accepts_connections(port, address) for address, port in self.receivers)
            and all(" ready" in self.log(part.name).read_text() for part in workers)
        ):
            if time.monotonic() > end:
                raise RuntimeError(f"not ready; logs are in {self.folder}")
            time.sleep(0.1)

    def log(self, name: str) -> Path:
        """Log of a part."""
        return self.folder / f"{name}.log"

    def stop_parts(self) -> list[str]:
        """Stop every part; return processes that it left behind."""
        for part in self.parts:
            part.stop()
        time.sleep(0.5)
        return [f"process {pid} left behind: {name}" for pid, name in self._left_behind()]

    def _left_behind(self) -> Iterator[tuple[int, str]]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(FOLDER_VARIABLE) == str(self.folder):
                    yield process.pid, process.name()

    def _start(self) -> None:
        raise NotImplementedError

    def _add(self, name: str, *module: str, host: Host | None = None) -> None:
        environment = {f"EPVS_{key.upper()}": str(value) for key, value in self.settings.items()}
        environment |= {FOLDER_VARIABLE: str(self.folder), "OMP_NUM_THREADS": "1"}
        self.parts.append(Part(name, module, self.log(name), environment, host))
        self.parts[-1].start()

    def _add_worker(self, name: str, host: Host | None = None) -> None:
        options = ("worker", "--concurrency", "2", "--without-gossip", "--without-mingle")
        self._add(name, "celery", "-A", "tests.faults.campaign.worker", *options, host=host)

    def _add_archives(self, address: str, reports_to: tuple[str, int] | None) -> None:
        first = Archive(self._seed)
        second = Archive(self._seed + 1, loses=True, reports_to=reports_to)
        names = []
        for archive, commits in ((first, False), (second, True)):
            running = scripted_destination(address=address, commits=commits, scripted=archive)
            self._cleanup.enter_context(running)
            port = archive.destination.port
            names.append(f"PACS@{address}:{port}" + ("?commit=1" if commits else ""))
            self.archives.append(archive)
        self.settings["destinations"] = ",".join(names)

    def _add_redis(self, **options: str) -> None:
        self.redis = RedisServer(self.folder, **options)
        self.redis.start()
        self._cleanup.callback(self.redis.kill)

    def _choose(self, kind: str, number: int) -> Part:
        parts = [part for part in self.parts if part.name.startswith(kind)]
        return parts[number % len(parts)]

    def _exclusively(
        self, what: str, begin: Callable[[], object], end: Callable[[], object]
    ) -> Callable[[], bool] | None:
        if what in self._busy:
            return None
        self._busy.add(what)
        begin()

        def mend() -> bool:
            if end() is False:
                return False
            self._busy.discard(what)
            return True

        return mend

    def _kill(self, part: Part) -> Callable[[], bool] | None:
        return self._exclusively(part.name, part.kill, part.start)

    def _restart(self, part: Part) -> Callable[[], bool] | None:
        def start() -> bool:
            if part.is_running():
                return False
            part.start()
            return True

        return self._exclusively(part.name, part.terminate, start)

    def _kill_child(self, part: Part, number: int) -> Callable[[], bool] | None:
        children = part.children()
        if not children:
            return None
        with suppress(psutil.NoSuchProcess):
            children[number % len(children)].kill()
        return lambda: True

    def _flush(self) -> Callable[[], bool] | None:
        if "redis" in self._busy:
            return None
        with self.redis.client() as client:
            client.flushall()
        return lambda: True

    def _pause(
        self, what: str, find: Callable[[], list[psutil.Process]]
    ) -> Callable[[], bool] | None:
        if what in self._busy:
            return None
        processes = find()

        def send(number: int) -> None:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

        return self._exclusively(what, lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT))

    def _fill(self, what: str, folder: Path) -> Callable[[], bool] | None:
        ballast = folder / "ballast"
        return self._exclusively(what, lambda: fill(ballast), lambda: ballast.unlink())


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
        self.engine = create_engine(url)
        self._cleanup.callback(self.engine.dispose)
        self._cleanup.callback(self.stop_parts)
        self._add("receiver", "receiver")
        self._add("housekeeper", "worker.housekeeper")
        self._add_worker("worker")


class HostsSite(Site):
    """Two hosts with receivers, two with workers and housekeepers; PostgreSQL and Redis central."""

    kinds = (
        *_COMMON,
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
        self.engine = create_engine(url)
        self._cleanup.callback(self.engine.dispose)
        self._cleanup.callback(self.stop_parts)
        for number, host in enumerate(self._hosts[:2]):
            self._add(f"receiver-{number}", "receiver", host=host)
        for number, host in enumerate(self._hosts[2:]):
            self._add(f"housekeeper-{number}", "worker.housekeeper", host=host)
            self._add_worker(f"worker-{number}", host)

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


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a file system of this size; needs root."""
    folder.mkdir(parents=True)
    size = f"size={megabytes}M,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def fill(ballast: Path) -> None:
    """Take all free space of a disk."""
    with ballast.open("wb") as file, suppress(OSError):
        status = os.statvfs(ballast.parent)
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize)
