"""The node on its hosts, for `tests.bench.scaleout`, and what each of its parts has used."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
from celery import Celery

from tests.bench.ingest import cpu_s
from tests.support.servers.hosts import Network
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.redis import RedisServer
from tests.support.servers.site import PASSWORD, Site
from worker.app import GRADE_REVISION, QUEUES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.servers.hosts import Host

_FLUSHED_S: Final = 1.5
"""PostgreSQL's sessions report their statistics once a second."""


class Node:
    """The node on its hosts, with PostgreSQL as durable as in production."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.network = stack.enter_context(Network())
        self.postgres = PostgresServer(
            address=self.network.address, subnet=self.network.subnet, measured=True
        )
        stack.callback(self.postgres.remove)
        self.postgres.start()
        self.redis = RedisServer(folder, address=self.network.address, password=PASSWORD)
        self.redis.start()
        stack.callback(self.redis.kill)
        self.site = Site(self.network, self.postgres, self.redis, folder)
        stack.callback(self.network.stop_hosts)
        self.site.settings |= {"lease_s": 30.0, "sweep_interval_s": 1.0, "quiet_period_s": 2.0}
        self.site.settings |= {"triton_timeout_s": 60.0, "network_timeout_s": 60.0}
        self.hosts: dict[str, list[Host]] = defaultdict(list)
        self.others: dict[str, int] = {"PostgreSQL": self.postgres.pid, "Redis": self.redis.pid}
        self.database = str(self.site.engine.url.database)
        with self.postgres.connect(self.database) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        self._celery = Celery(broker=self.redis.url.replace("//", f"//:{PASSWORD}@"))

    def host(self, part: str) -> Host:
        """Make a host for a part of the node."""
        self.hosts[part].append(self.network.add_host())
        return self.hosts[part][-1]

    def start_workers(self, part: str, n: int, app: str) -> list[str]:
        """Start `n` workers on hosts of their own; they take nothing yet. Return their names."""
        names = []
        for number in range(n):
            name = f"{part.replace(' ', '-')}-{number}"
            options = ("--concurrency", "1", "--without-gossip", "--without-mingle")
            queue = ("--queues", QUEUES[GRADE_REVISION], "--hostname", f"{name}@bench")
            command = ("celery", "-A", app, "worker", *options, *queue)
            log = self.site.start(self.host(part), *command, log=name)
            self.site.wait_for(log, "ready")
            names.append(f"{name}@bench")
        self.consume(names, False)
        return names

    def consume(self, workers: Sequence[str], on: bool) -> None:
        """Let workers take studies, or not."""
        change = self._celery.control.add_consumer if on else self._celery.control.cancel_consumer
        replies = change(QUEUES[GRADE_REVISION], destination=list(workers), reply=True, timeout=5)
        assert len(replies) == len(workers), replies

    def snapshot(self) -> dict[str, float]:
        """CPU seconds of every part, and the counters of the servers."""
        time.sleep(_FLUSHED_S)
        found = {f"cpu {part}": _cpu_s(pid) for part, pid in self.others.items()}
        for part, hosts in self.hosts.items():
            found[f"cpu {part}"] = sum(_cpu_s(pid) for host in hosts for pid in host.pids)
        query = (
            "SELECT sum(calls) FILTER (WHERE query IN ('COMMIT', 'ROLLBACK')), sum(calls), "
            "pg_database_size(current_database()), "
            "pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') "
            "FROM pg_stat_statements WHERE userid = 'epvs_node'::regrole"
        )
        with self.postgres.connect(self.database) as connection:
            row: Any = connection.execute(query).fetchone()
        names = ("transactions", "statements", "database bytes", "WAL bytes")
        found |= {name: float(value) for name, value in zip(names, row, strict=True)}
        with self.redis.client() as client:
            info: Any = client.info()
            found["Redis commands"] = float(info["total_commands_processed"])
        data = Path(self.site.settings["data_dir"])
        for folder in ("spool", "reports"):
            files = (path for path in (data / folder).rglob("*.dcm"))
            found[f"{folder} bytes"] = float(sum(path.stat().st_size for path in files))
        found["seconds"] = time.monotonic()
        return found

    def count(self, state: str) -> int:
        """Count revisions in a state, as another role than the node, so as not to be counted."""
        query = "SELECT count(*) FROM revisions WHERE state = %s"
        with self.postgres.connect(self.database) as connection:
            row: Any = connection.execute(query, [state]).fetchone()
        return int(row[0])

    def wait_for(self, state: str, n: int) -> None:
        """Wait until so many revisions are in a state."""
        self.site.wait(lambda: self.count(state) == n, f"{n} {state}", every_s=0.25)


def _cpu_s(pid: int) -> float:
    return cpu_s(psutil.Process(pid))


@contextmanager
def measuring(node: Node, phases: dict[str, list[dict[str, float]]], name: str) -> Iterator[None]:
    """Add to `phases` by how much every counter grows."""
    before = node.snapshot()
    yield
    after = node.snapshot()
    phases.setdefault(name, []).append({k: after[k] - before.get(k, 0.0) for k in after})
