"""Embedded stack: all components of the node on one machine, each in its own process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from core import queues
from core.destinations import DicomDestination
from core.errors import ConfigurationError
from core.setting_files import file_variable, variable
from core.settings import load_settings
from db import migrate
from node.embedded import systemd
from node.embedded.process import ManagedProcess, accepts_connections
from node.embedded.redis import EmbeddedRedis
from node.embedded.running import RunningStack, require_not_running
from node.embedded.servers import Servers
from node.embedded.supervision import Component
from node.embedded.triton import EmbeddedTriton

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from core.settings import Settings
    from node.embedded.supervision import ComponentState, Process

ANY_LOOPBACK_CALLER = "*@127.0.0.0/8,*@::1/128"
START_TIMEOUT_S: Final = 300.0
"""A component that is not ready after this time has failed to start."""
SUPERVISION_INTERVAL_S: Final = 0.5
STOP_S: Final = 10.0
STOP_WORKER_S: Final = 45.0
"""Longer than workers give what they have in hand (`worker.app.SOFT_SHUTDOWN_S`)."""
_MOST_DELIVERING: Final = 16
_WORKER: Final = "worker"
_DELIVERY: Final = "delivery"


def embedded_settings(settings: Settings) -> Settings:
    """Adapt the settings to the embedded stack: any caller, but on loopback only.

    Explicit settings are kept. Paths become absolute, because they are passed to other processes.
    """
    given = settings.model_fields_set
    changes: dict[str, object] = {
        "data_dir": settings.data_dir.absolute(),
        "models_dir": settings.models_dir.absolute(),
    }
    if "host" not in given:
        changes["host"] = "127.0.0.1"
    if "callers" not in given:
        changes["callers"] = ANY_LOOPBACK_CALLER
    return settings.model_copy(update=changes)


def delivering_processes(settings: Settings) -> int:
    """Return how many deliveries are carried out at once: what all destinations may take together.

    Then one that does not respond takes no process from another. With ``*@*:port`` any number of
    senders are destinations; two of them are counted.
    """
    n_senders = sum(
        isinstance(each, DicomDestination) and each.is_sender for each in settings.destination_list
    )
    wanted = settings.deliveries_per_destination * (len(settings.destination_list) + n_senders)
    return max(2, min(wanted, _MOST_DELIVERING))


@dataclass
class EmbeddedStack:
    """All components, Redis and Triton included, started in the order of dependency.

    Parameters
    ----------
    settings : Settings
        As `embedded_settings` returns them.
    on_progress : callable
        Called with a line of text before each step of the start, and when a component ends.

    Notes
    -----
    Use it as a context manager: it stops what it started in reverse order, also when the start
    fails half-way.
    """

    settings: Settings
    on_progress: Callable[[str], None] = lambda _: None
    components: list[Component] = field(default_factory=list)
    """In the order of their start."""
    start_s: float = 0.0
    """Duration of the start."""
    _running: RunningStack | None = None
    _own_broker: bool = False
    _announced: list[ComponentState] = field(default_factory=list)

    @property
    def log_dir(self) -> Path:
        """Folder of the log files, one per component."""
        return self.settings.data_dir / "logs"

    def __enter__(self) -> EmbeddedStack:
        try:
            self._start()
        except BaseException:  # Ctrl-C too: `__exit__` is not called when this fails
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> None:
        require_not_running(self.settings)
        _require_free_ports(self.settings)
        self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._running = RunningStack(self.settings)
        began = time.monotonic()
        if not {"triton_url", "broker_url"} <= self.settings.model_fields_set:
            Servers.install(self.on_progress)
        triton_url = self._start_triton()
        broker_url = self._start_broker()
        self.on_progress("database: applying migrations")
        migrate.upgrade(
            self.settings.database_owner_url or self.settings.database_url,
            runtime_url=self.settings.database_url,
        )
        self.settings = self.settings.model_copy(
            update={
                "triton_url": triton_url,
                "broker_url": broker_url,
                "database_owner_url": "",  # no component may change the schema
            }
        )
        own = [
            self._launch_receiver(),
            self._launch_module(
                "housekeeper", ["-m", "worker.housekeeper"], self.settings.housekeeper_ready_file
            ),
            self._launch_worker(
                _WORKER, queues.GRADING, self.settings.worker_ready_file, processes=1
            ),
            # Of its own, so that a report is never behind studies that are graded.
            self._launch_worker(
                _DELIVERY,
                queues.DELIVERY,
                self.settings.delivery_ready_file,
                processes=delivering_processes(self.settings),
            ),
        ]
        self.on_progress("worker: checking the predictions of both models against reference values")
        for component in own:
            component.wait_until_ready()
        self._announce()
        self.start_s = time.monotonic() - began

    def _start_triton(self) -> str:
        if "triton_url" in self.settings.model_fields_set:
            return self.settings.triton_url
        self.on_progress("Triton Inference Server: loading both models (CPU)")
        triton = EmbeddedTriton(
            models_dir=self.settings.models_dir,
            work_dir=self.settings.data_dir / "embedded" / "triton",
            log_path=self.log_dir / "triton.log",
        )
        self._launch("Triton", triton.launch, triton.is_ready).wait_until_ready()
        return triton.url

    def _start_broker(self) -> str:
        if "broker_url" in self.settings.model_fields_set:
            return self.settings.broker_url
        self.on_progress("Redis: starting the broker")
        redis = EmbeddedRedis(
            self.settings.data_dir / "embedded" / "redis", self.log_dir / "redis.log"
        )
        redis.discard_data()
        self._launch("Redis", redis.launch, redis.is_ready).wait_until_ready()
        self._own_broker = True
        return redis.url

    def _launch_receiver(self) -> Component:
        settings = self.settings
        host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
        ports = _ports(settings)
        self.on_progress("receiver: starting")
        return self._launch(
            "receiver",
            lambda: self._process("receiver", ["-m", "receiver"]),
            lambda: all(accepts_connections(port, host) for port in ports),
        )

    def _launch_module(
        self, name: str, arguments: list[str], ready_file: Path, *, is_worker: bool = False
    ) -> Component:
        """Launch a component that creates `ready_file` when it does its work."""

        def launch() -> ManagedProcess:
            ready_file.unlink(missing_ok=True)
            return self._process(name, arguments, is_worker=is_worker)

        self.on_progress(f"{name}: starting")
        return self._launch(name, launch, ready_file.exists)

    def _launch_worker(
        self, name: str, queue: str, ready_file: Path, *, processes: int
    ) -> Component:
        return self._launch_module(
            name,
            [
                *("-m", "celery", "-A", "worker.app", "worker"),
                *("--queues", queue, "--hostname", f"{name}@%h"),
                *("--concurrency", str(processes), "--without-gossip", "--without-mingle"),
            ],
            ready_file,
            is_worker=True,
        )

    def _process(
        self, name: str, arguments: list[str], *, is_worker: bool = False
    ) -> ManagedProcess:
        environment = environment_of(self.settings)
        if is_worker:  # it finishes what it has in hand, or gives it back
            environment["REMAP_SIGTERM"] = "SIGQUIT"
        return ManagedProcess(
            name,
            [sys.executable, *arguments],
            self.log_dir / f"{name}.log",
            env=environment,
            grace_s=STOP_WORKER_S if is_worker else STOP_S,
        )

    def _launch(
        self, name: str, launch: Callable[[], Process], is_ready: Callable[[], bool]
    ) -> Component:
        component = Component(name, launch, is_ready, start_timeout_s=START_TIMEOUT_S)
        self.components.append(component)
        component.launch()
        return component

    def run_until_interrupted(self) -> None:
        """Supervise the components until Ctrl-C, SIGTERM or the end of the terminal."""
        stop = threading.Event()
        # Noted, not raised: an exception could come between the start of a process and the note
        # that there is one.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: stop.set())
        systemd.notify("READY=1")
        while not stop.wait(SUPERVISION_INTERVAL_S):
            self.supervise()
            systemd.notify("WATCHDOG=1")
        systemd.notify("STOPPING=1")
        self.on_progress("stopping")

    def supervise(self) -> None:
        """Restart what has ended, without waiting for it."""
        for component in self.components:
            if event := component.supervise():
                with contextlib.suppress(OSError):  # output into a file on a full disk
                    self.on_progress(f"{component.name}: {event}")
        with contextlib.suppress(OSError):  # a full disk: tried again at the next step
            self._announce()

    def stop(self) -> None:
        """Stop everything that was started, in reverse order; both workers at once."""
        for component in self.components:
            if component.name in (_WORKER, _DELIVERY):
                component.terminate()
        while self.components:
            self.components.pop().stop()
        if self._running is not None:
            self._running.withdraw()
            self._running = None

    def _announce(self) -> None:
        """Tell other commands and systemd the states of the components, if they have changed."""
        states = [component.state for component in self.components]
        if states != self._announced and self._running is not None:
            self._running.announce(self.settings, states, own_broker=self._own_broker)
            systemd.notify("STATUS=" + ", ".join(f"{each.name} {each.state}" for each in states))
            self._announced = states


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the variables that give a child process these settings.

    Only what differs from the settings of this process, whose environment the child inherits: a
    secret that was read from a file must not enter an environment.
    """
    inherited = load_settings().model_dump(mode="json")
    variables = {}
    for name, value in settings.model_dump(mode="json").items():
        if value != inherited[name]:
            variables[variable(name)] = str(_as_text(value))
            if file_variable(name) in os.environ:
                variables[file_variable(name)] = ""
    return variables


def _as_text(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _ports(settings: Settings) -> list[int]:
    return [port for port in (settings.port, settings.tls_port) if port]


def _require_free_ports(settings: Settings) -> None:
    for port in _ports(settings):
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((settings.host, port))
        except OSError as error:
            raise ConfigurationError(
                f"Cannot listen on {settings.host}:{port} ({error.strerror}).",
                "Stop what uses it, or choose another with EPVS_HOST, EPVS_PORT, EPVS_TLS_PORT.",
            ) from None
