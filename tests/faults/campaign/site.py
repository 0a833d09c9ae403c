"""The node under test: its processes, broker, archives, and the faults that both sites have."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import psutil
import redis

from tests.faults.campaign.archives import Archive
from tests.faults.campaign.disks import fill, small_disk
from tests.faults.campaign.parts import Supervised
from tests.faults.campaign.schedule import Kind
from tests.support.servers.destination import scripted_destination
from tests.support.servers.receiver import accepts_connections
from tests.support.servers.scripted_worker import FOLDER_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from sqlalchemy import Engine

    from tests.faults.campaign.parts import Part
    from tests.support.servers.hosts import Host

_SETTINGS: Final[dict[str, Any]] = {
    "ae_title": "EPVSNODE",
    "lease_s": 5.0,
    "quiet_period_s": 1.0,
    "sweep_interval_s": 0.3,
    "network_timeout_s": 5.0,
    "triton_timeout_s": 10.0,
    "commitment_timeout_s": 5.0,
    "spool_reserve_mb": 0,
    # Workers are killed every few seconds: three attempts would fail studies that do no harm.
    "max_attempts": 10,
}
_DISK_MB: Final = 3072
COMMON: Final = (
    Kind.RECEIVER_KILLED,
    Kind.WORKER_KILLED,
    Kind.WORKER_CHILD_KILLED,
    Kind.WORKER_RESTARTED,
    Kind.HOUSEKEEPER_KILLED,
    Kind.REDIS_FLUSHED,
    Kind.REDIS_PAUSED,
    Kind.DISK_FULL,
)
TRITON: Final = (Kind.TRITON_KILLED, Kind.TRITON_CHILD_KILLED, Kind.TRITON_PAUSED)
_WORKERS: Final = ("worker", "delivery")


class Site(ABC):
    """Node, broker, database and archives; a context manager that stops all of it.

    Parameters
    ----------
    folder : Path
        Gets logs and journals. The data folder in it is a small disk of its own.
    seed : int
        Of the archives.
    with_models : bool
        Whether Triton and a worker with the models run too, where they are not needed.
    """

    kinds: tuple[Kind, ...] = COMMON
    engine: Engine

    def __init__(self, folder: Path, seed: int, *, with_models: bool = False) -> None:
        self.folder, self.data_dir = folder, folder / "data"
        self.settings: dict[str, Any] = {**_SETTINGS, "data_dir": self.data_dir}
        self.receivers: list[tuple[str, int]] = []
        self.parts: list[Part] = []
        self.archives: list[Archive] = []
        self._seed, self._with_models = seed, with_models
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
                return self._kill(self._choose(number, "receiver"))
            case Kind.WORKER_KILLED:
                return self._kill(self._choose(number, *_WORKERS))
            case Kind.WORKER_CHILD_KILLED:
                return self._kill_child(self._choose(number, *_WORKERS), number)
            case Kind.WORKER_RESTARTED:
                part = self._choose(number, *_WORKERS)
                return self._exclusively(part.name, part.terminate, part.start)
            case Kind.HOUSEKEEPER_KILLED:
                return self._kill(self._choose(number, "housekeeper"))
            case Kind.REDIS_FLUSHED:
                return self._flush()
            case Kind.REDIS_PAUSED:
                return self._pause("Redis", self._redis_processes)
            case Kind.TRITON_PAUSED:
                return self._pause("Triton", self._triton_processes)
            case Kind.DISK_FULL:
                return self._fill("disk", self.data_dir)
        raise ValueError(kind)

    @abstractmethod
    def redis_client(self) -> redis.Redis:
        """Client of the broker, with its own connection."""

    def wait_until_ready(self, timeout_s: float = 240.0) -> None:
        """Wait until every receiver listens and every worker is ready."""
        end = time.monotonic() + timeout_s
        while not (
            all(accepts_connections(port, address) for address, port in self.receivers)
            and self._are_workers_ready()
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
            part.terminate()
        for part in self.parts:
            part.stop()
        time.sleep(0.5)
        return [f"process {pid} left behind: {name}" for pid, name in self._left_behind()]

    def _left_behind(self) -> Iterator[tuple[int, str]]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(FOLDER_VARIABLE) == str(self.folder):
                    yield process.pid, process.name()

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _are_workers_ready(self) -> bool: ...

    @abstractmethod
    def _redis_processes(self) -> list[psutil.Process]: ...

    @abstractmethod
    def _triton_processes(self) -> list[psutil.Process]: ...

    def _add(self, name: str, *module: str, host: Host | None = None) -> None:
        environment = {f"EPVS_{key.upper()}": str(value) for key, value in self.settings.items()}
        environment |= {FOLDER_VARIABLE: str(self.folder), "OMP_NUM_THREADS": "1"}
        part = Supervised(name, module, self.log(name), environment, host)
        self.parts.append(part)
        part.start()

    def _add_archives(self, address: str, reports_to: tuple[str, int] | None) -> None:
        first = Archive(self._seed)
        second = Archive(self._seed + 1, loses=True, reports_to=reports_to)
        names = []
        for archive, commits in ((first, False), (second, True)):
            running = scripted_destination(address=address, commits=commits, scripted=archive)
            self._cleanup.enter_context(running)
            port = archive.destination.port
            names.append(f"PACS@{address}:{port}?notgraded=1" + ("&commit=1" if commits else ""))
            self.archives.append(archive)
        self.settings["destinations"] = ",".join(names)

    def _choose(self, number: int, *names: str) -> Part:
        parts = [part for part in self.parts if part.name.startswith(names)]
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
        if part.main() is None:
            return None
        return self._exclusively(part.name, part.kill, part.start)

    def _kill_child(self, part: Part, number: int) -> Callable[[], bool] | None:
        children = part.children()
        if not children or part.name in self._busy:
            return None
        with suppress(psutil.NoSuchProcess):
            children[number % len(children)].kill()
        return lambda: True

    def _flush(self) -> Callable[[], bool] | None:
        if "Redis" in self._busy:
            return None
        try:
            with self.redis_client() as client:
                self._empty(client)
        except redis.RedisError:  # it has a fault already: its disk is full, for example
            return None
        return lambda: True

    def _empty(self, client: redis.Redis) -> None:
        client.flushall()

    def _pause(
        self, what: str, find: Callable[[], Sequence[psutil.Process]]
    ) -> Callable[[], bool] | None:
        processes = () if what in self._busy else find()
        if not processes:
            return None

        def send(number: int) -> None:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

        return self._exclusively(what, lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT))

    def _fill(self, what: str, folder: Path) -> Callable[[], bool] | None:
        ballast = folder / "ballast"
        return self._exclusively(what, lambda: fill(ballast), lambda: ballast.unlink())
