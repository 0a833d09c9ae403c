"""A receiver process as in production: ``python -m receiver`` with a migrated database."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from db.migrate import upgrade
from db.models import AuditEvent, Instance, QuarantinedInstance, Revision
from db.session import create_engine, unit_of_work
from db.views import read_view
from tests.support.paths import ROOT
from tests.support.servers.dcmtk import dcmtk_program
from tests.support.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

AE_TITLE = "EPVSNODE"


@dataclass(frozen=True)
class ReceiverProcess:
    """A running receiver and access to what it has written."""

    port: int
    data_dir: Path
    database_url: str
    log: Path
    process: subprocess.Popen[bytes]
    environment: dict[str, str]

    @property
    def spool(self) -> Path:
        return self.data_dir / "spool"

    def files(self) -> set[Path]:
        """Every file in the spool, including incomplete ones, without the locks."""
        found = {path for path in self.spool.rglob("*") if path.is_file()}
        return found - set(self.spool.glob("tmp/*.lock"))

    def instances(self) -> list[Instance]:
        return self._rows(Instance)

    def revisions(self) -> list[Revision]:
        return self._rows(Revision)

    def quarantined(self) -> list[QuarantinedInstance]:
        return self._rows(QuarantinedInstance)

    def audit(self, event: str) -> list[AuditEvent]:
        return [row for row in self._rows(AuditEvent) if row.event == event]

    def wait_for_audit(self, event: str, count: int = 1) -> list[AuditEvent]:
        """Wait for audit events: that of the first refusal of a kind is appended a little later."""
        return wait_until(lambda: rows if len(rows := self.audit(event)) >= count else None)

    def refusals(self, event: str) -> list[dict[str, Any]]:
        """Rows of the view of that name."""
        engine = create_engine(self.database_url)
        try:
            with unit_of_work(engine, read_only=True) as session:
                return read_view(session, "refusals", event=event)
        finally:
            engine.dispose()

    def wait_for_refusals(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait until so many are counted: they are written a little later."""

        def counted() -> list[dict[str, Any]] | None:
            rows = self.refusals(event)
            return rows if sum(row["times"] for row in rows) >= times else None

        return wait_until(counted)

    def forget(self, empty_database: Path) -> None:
        """Empty the spool and the SQLite database, as if the receiver had just started."""
        assert self.process.poll() is None, self.log.read_text()
        # Refusals are written in order, some just after the response; this is the last one.
        subprocess.run(
            [
                *(dcmtk_program("echoscu"), "-aet", "LAST", "-aec", "OTHER"),
                *("127.0.0.1", str(self.port)),
            ],
            capture_output=True,
            check=False,
        )
        wait_until(
            lambda: any(row["calling_ae"] == "LAST" for row in self.refusals("association-refused"))
        )
        with (
            closing(sqlite3.connect(empty_database)) as source,
            closing(sqlite3.connect(self.data_dir / "epvs.sqlite", timeout=30)) as target,
        ):
            source.backup(target)  # to open connections, a transaction like any other
        for path in self.files():
            path.unlink()

    def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def _rows(self, table: Any) -> list[Any]:
        engine = create_engine(self.database_url)
        try:
            with unit_of_work(engine, read_only=True) as session:
                return list(session.scalars(select(table)))
        finally:
            engine.dispose()


@contextmanager
def run_receiver(
    data_dir: Path,
    *,
    database_url: str | None = None,
    largest_file_bytes: int | None = None,
    module: Sequence[str] = ("receiver",),
    **settings: str,
) -> Iterator[ReceiverProcess]:
    """Start a receiver on a free port and stop it afterwards.

    Parameters
    ----------
    data_dir : Path
    database_url : str, optional
        By default a new SQLite file in `data_dir`; a PostgreSQL database must be migrated already.
    largest_file_bytes : int, optional
        RLIMIT_FSIZE of the process: writes beyond it fail as on a full disk.
    module : sequence of str, optional
        Module to run in place of ``receiver``, with its arguments.
    **settings : str
        ``callers="*@127.0.0.1"`` becomes ``EPVS_CALLERS``.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    url = database_url or f"sqlite:///{data_dir / 'epvs.sqlite'}"
    if url.startswith("sqlite"):
        upgrade(url)
    port = int(settings.get("port") or free_port())
    chosen = {
        "ae_title": AE_TITLE,
        "host": "127.0.0.1",
        "port": str(port),
        "callers": "*@127.0.0.1",
        "data_dir": str(data_dir),
        "database_url": url,
        "spool_reserve_mb": "0",
        "log_level": "DEBUG",
        **settings,
    }
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EPVS_")}
    environment |= {f"EPVS_{name.upper()}": value for name, value in chosen.items()}
    log = data_dir / "receiver.log"

    def limit_files() -> None:
        if largest_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, largest_file_bytes))

    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            env=environment,
            stderr=stderr,
            preexec_fn=limit_files,
        )
    try:
        wait_until(lambda: accepts_connections(port) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield ReceiverProcess(port, data_dir, url, log, process, environment)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def accepts_connections(port: int, address: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Any, timeout_s: float = 30) -> Any:
    """Wait for a truthy value of `condition` and return it."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, f"condition not met within {timeout_s:.0f} s"
        time.sleep(0.02)
    return value
