"""Embedded stack: all components of the node on one machine, each in its own process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.errors import ConfigurationError, Unavailable
from core.setting_files import file_variable, variable
from core.settings import load_settings
from db import migrate
from node.embedded import running
from node.embedded.process import ManagedProcess, accepts_connections
from node.embedded.redis import start_redis
from node.embedded.servers import Servers
from node.embedded.triton import EmbeddedTriton

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from core.settings import Settings

ANY_LOOPBACK_CALLER = "*@127.0.0.0/8,*@::1/128"


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


@dataclass
class EmbeddedStack:
    """Receiver, worker, housekeeper, Redis and Triton, started in the order of dependency.

    Parameters
    ----------
    settings : Settings
        As `embedded_settings` returns them.
    on_progress : callable
        Called with a line of text before each step of the start.

    Notes
    -----
    Use it as a context manager: it stops what it started in reverse order, also when the start
    fails half-way.
    """

    settings: Settings
    on_progress: Callable[[str], None] = lambda _: None
    processes: list[ManagedProcess] = field(default_factory=list)
    triton: EmbeddedTriton | None = None
    start_s: float = 0.0
    """Duration of the start."""

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
        running.require_not_running(self.settings)
        _require_free_port(self.settings)
        self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        ready_file = self.settings.worker_ready_file
        receiver = self._start_component("receiver", ["-m", "receiver"])
        self._start_component("housekeeper", ["-m", "worker.housekeeper"])
        ready_file.unlink(missing_ok=True)
        worker = self._start_component(
            "worker",
            [
                *("-m", "celery", "-A", "worker.app", "worker"),
                *("--concurrency", "1", "--without-gossip", "--without-mingle"),
            ],
        )
        receiver.wait_until(lambda: accepts_connections(self.settings.port), timeout_s=30)
        self.on_progress("worker: checking the predictions of both models against reference values")
        worker.wait_until(ready_file.exists, timeout_s=120)
        running.announce(self.settings)
        self.start_s = time.monotonic() - began

    def _start_triton(self) -> str:
        if "triton_url" in self.settings.model_fields_set:
            return self.settings.triton_url
        self.on_progress("Triton Inference Server: loading both models (CPU)")
        self.triton = EmbeddedTriton(
            models_dir=self.settings.models_dir,
            work_dir=self.settings.data_dir / "embedded" / "triton",
            log_path=self.log_dir / "triton.log",
        )
        self.triton.start()
        return self.triton.url

    def _start_broker(self) -> str:
        if "broker_url" in self.settings.model_fields_set:
            return self.settings.broker_url
        self.on_progress("Redis: starting the broker")
        process, url = start_redis(
            self.settings.data_dir / "embedded" / "redis", self.log_dir / "redis.log"
        )
        self.processes.append(process)
        return url

    def _start_component(self, name: str, arguments: list[str]) -> ManagedProcess:
        self.on_progress(f"{name}: starting")
        process = ManagedProcess(
            name,
            [sys.executable, *arguments],
            self.log_dir / f"{name}.log",
            env=environment_of(self.settings),
        )
        self.processes.append(process)
        return process

    def run_until_interrupted(self) -> None:
        """Monitor the components until Ctrl-C or SIGTERM.

        Raises
        ------
        Unavailable
            A component ended unexpectedly.
        """
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # handled like Ctrl-C
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self.check()
                time.sleep(1.0)
        self.on_progress("stopping")

    def check(self) -> None:
        """Restart Triton if it has ended; raise `Unavailable` if another component has.

        Triton neither restarts a model process that died nor reports itself as not ready.
        """
        if self.triton is not None and not self.triton.running():
            self.on_progress("Triton Inference Server: has ended, restarting it")
            self.triton.stop()
            self.triton.start()
        for process in self.processes:
            if not process.running():
                raise Unavailable(
                    process.name,
                    f"{process.name} has ended unexpectedly.\n{process.log_tail()}",
                    f"Its log is {process.log_path}.",
                )

    def stop(self) -> None:
        """Stop everything that was started, in reverse order."""
        if self.processes:
            running.withdraw(self.settings)
        while self.processes:
            self.processes.pop().stop()
        if self.triton is not None:
            self.triton.stop()
            self.triton = None


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


def _require_free_port(settings: Settings) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}).",
            "Stop what uses it, or choose another with EPVS_HOST and EPVS_PORT.",
        ) from None
