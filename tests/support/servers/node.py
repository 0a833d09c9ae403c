"""A node without receiver and models: a real Celery worker, Redis, database and housekeeper."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from core.settings import Settings, load_settings
from db.models import Revision
from db.session import create_engine, unit_of_work
from tests.support.builders.made_study import receive_study
from tests.support.paths import ROOT
from tests.support.servers.scripted_worker import FOLDER_VARIABLE, Script
from worker.housekeeper import Housekeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Engine

    from tests.support.servers.redis import RedisServer

TIMEOUT_S = 60.0


class Node:
    """Everything between a stored study and its delivery, with short leases and periods."""

    def __init__(self, folder: Path, database_url: str, redis: RedisServer) -> None:
        self.folder = folder
        self.redis = redis
        self.script = Script(folder)
        self.log = folder / "worker.log"
        self._values: dict[str, Any] = {
            "data_dir": folder,
            "database_url": database_url.replace("postgresql:", "postgresql+psycopg:"),
            "broker_url": redis.url,
            "lease_s": 2.0,
            "sweep_interval_s": 0.2,
            "quiet_period_s": 0.5,
            "network_timeout_s": 1.0,
        }
        self.engine: Engine = create_engine(database_url)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._stop = threading.Event()
        self._housekeeping: threading.Thread | None = None

    @property
    def settings(self) -> Settings:
        """Settings with which every component is started."""
        return load_settings(**self._values)

    def set(self, **values: Any) -> None:
        """Change settings of components that are started from now on."""
        self._values |= values

    def start_housekeeper(self) -> None:
        """Start a housekeeper that repeats notifications after a second."""
        keeper = Housekeeper(self.settings, self.engine, repeat_after_s=1.0)
        self._housekeeping = threading.Thread(target=keeper.run, args=(self._stop,))
        self._housekeeping.start()

    def start_worker(
        self,
        *options: str,
        concurrency: int = 2,
        app: str = "tests.support.servers.scripted_worker",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a worker without waiting for it to be ready; ``worker.app`` grades with models."""
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", app),
                    *("worker", "--concurrency", str(concurrency)),
                    *("--without-gossip", "--without-mingle", *options),
                ],
                cwd=ROOT,
                env={**self.environment(), **(environment or {})},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._workers.append(worker)
        return worker

    def environment(self) -> dict[str, str]:
        """Environment variables of a component."""
        settings = {f"EPVS_{name.upper()}": str(value) for name, value in self._values.items()}
        return {**os.environ, **settings, FOLDER_VARIABLE: str(self.folder), "OMP_NUM_THREADS": "1"}

    def kill_workers(self) -> None:
        """Kill the workers and their children, as a power failure would."""
        while self._workers:
            worker = self._workers.pop()
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(worker.pid, signal.SIGKILL)  # it leads its own session
            worker.wait()

    def receive(self, study_uid: str) -> None:
        """Receive a study."""
        with unit_of_work(self.engine) as session:
            receive_study(session, study_uid)

    def revision(self, study_uid: str) -> Revision:
        """The only revision of a study."""
        with unit_of_work(self.engine, read_only=True) as session:
            return session.scalars(select(Revision).where(Revision.study_uid == study_uid)).one()

    def state(self, study_uid: str) -> str:
        """State of the only revision of a study."""
        return self.revision(study_uid).state.value

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until `condition` holds."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {TIMEOUT_S:.0f} s: {what}\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)

    def wait_for_state(self, study_uid: str, state: str) -> None:
        """Wait until the study is in `state`."""
        self.wait(lambda: self.state(study_uid) == state, f"{study_uid} to be {state}")

    def stop(self) -> None:
        """Stop every component that was started."""
        self.kill_workers()
        self._stop.set()
        if self._housekeeping is not None:
            self._housekeeping.join()
        self.engine.dispose()


@pytest.fixture
def node(tmp_path: Path, database_url: str, redis_server: RedisServer) -> Iterator[Node]:
    """A node of which only database and Redis are running."""
    made = Node(tmp_path, database_url, redis_server)
    yield made
    made.stop()
