"""Prepared statements against SQLAlchemy Core: CPU time of recording a batch of instances.

``python -m tests.bench.intake [--repeats 5]`` records batches of new instances of one receiving
study with `db.receiving.intake.record_instances`: with the statements of `db.receiving.prepared`,
as the receiver does, and with the same two statements run by SQLAlchemy Core. Writes
``docs/results/intake.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from db.migrate import upgrade
from db.receiving import intake
from db.receiving.intake import Intake, record_instances
from db.session import create_engine, unit_of_work
from tests.support.builders.records import instance
from tests.support.paths import ROOT
from tests.support.servers.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

REPORT: Final = ROOT / "docs" / "results" / "intake.md"
BATCHES: Final = (1, 8, 64)
_INSTANCES: Final = 1200
"""In each measurement, apart from the batches to warm up."""
_WARM_UP: Final = 20
MODES: Final = ("prepared", "Core")


@contextmanager
def running_by(mode: str, engine: Engine) -> Iterator[None]:
    """Let `record_instances` run its two frequent statements in a mode."""
    if mode == "prepared":
        yield
        return
    keep = intake._KEEP_RECEIVING._make(engine.dialect.name)
    add: Any = intake._ADD._make(engine.dialect.name)

    def keep_receiving(connection: Connection, study_uid: str, at: datetime) -> Any:
        values = {"of_study": study_uid, "at": at}
        row = connection.execute(keep, values).one_or_none()  # type: ignore[call-overload]
        return None if row is None else intake._OpenRevision(*row)

    def insert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> set[str]:
        return set(connection.scalars(add, rows)) if rows else set()

    with (
        patch.object(intake, "_keep_receiving", keep_receiving),
        patch.object(intake, "_insert", insert),
    ):
        yield


def measure(url: str, mode: str, size: int) -> float:
    """CPU microseconds of this thread for each instance, the median over the batches."""
    upgrade(url)
    engine = create_engine(url)
    with unit_of_work(engine) as session:
        record_instances(session, [instance(0)])
    found, number = [], 1
    with running_by(mode, engine):
        for _ in range(_WARM_UP + max(_INSTANCES // size, 20)):
            batch = [instance(number + n) for n in range(size)]
            number += size
            began = time.thread_time()
            with unit_of_work(engine) as session:
                outcomes = record_instances(session, batch)
            found.append(time.thread_time() - began)
            assert outcomes == [Intake.STORED] * size
    engine.dispose()
    return statistics.median(found[_WARM_UP:]) / size * 1e6


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    figures: dict[tuple[str, int, str], list[float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = PostgresServer()
        stack.callback(server.remove)
        server.start()
        for repeat in range(repeats):
            for size in BATCHES:
                for mode in MODES if repeat % 2 else MODES[::-1]:
                    urls = {
                        "SQLite": f"sqlite:///{folder}/{repeat}-{size}-{mode}.sqlite",
                        "PostgreSQL": server.url(server.create_database()),
                    }
                    for database, url in urls.items():
                        cpu = measure(url, mode, size)
                        figures.setdefault((database, size, mode), []).append(cpu)
    rows = []
    for database in ("SQLite", "PostgreSQL"):
        for size in BATCHES:
            prepared, core = (statistics.median(figures[database, size, mode]) for mode in MODES)
            rows.append(
                f"| {database} | {size} | {prepared:.0f} | {core:.0f} | {core / prepared:.2f} |"
            )
    REPORT.write_text(
        f"""# Prepared statements of the intake

Last output of `python -m tests.bench.intake --repeats {repeats}` on {os.cpu_count()} cores: CPU
time of recording new instances of one receiving study, from the beginning of the transaction to its
commit, in the receiver's process only. Medians of {repeats} repeats. A lone sender gives batches of
one instance; the more associations send at once, the larger the batches.

| database | instances in a batch | prepared, µs/instance | Core, µs/instance | ratio |
|---|---|---|---|---|
"""
        + "\n".join(rows)
        + "\n"
    )
    print(REPORT.read_text())


if __name__ == "__main__":
    main()
