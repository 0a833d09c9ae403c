"""Prepared statements against SQLAlchemy Core: CPU time of recording a batch of instances.

``python -m tests.bench.intake [--repeats 5]`` records batches of new instances of one receiving
study with `db.receiving.intake.record_instances`: with SQLAlchemy Core, as the receiver does, and
with the same two statements compiled once and run by the database driver. Writes
``docs/results/intake.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
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


class Prepared:
    """A statement that SQLAlchemy compiles once and the driver runs.

    Parameters
    ----------
    statement : Executable
    dialect : Dialect
    columns : sequence of str, optional
        Columns that an INSERT sets.
    """

    def __init__(self, statement: Any, dialect: Any, columns: Sequence[str] | None = None) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=columns)
        self._text = str(compiled)
        self._is_positional = compiled.positional
        self._places: list[tuple[str, Any, Any]] = []
        """Name, function that converts a value, and the constant if there is one."""
        for name in (compiled.positiontup or ()) if compiled.positional else compiled.params:
            parameter = compiled.binds[name]
            convert = parameter.type.dialect_impl(dialect).bind_processor(dialect) or _unchanged
            constant = None if parameter.required else convert(compiled.params[name])
            self._places.append((name, convert if parameter.required else None, constant))

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        bound = [
            (name, convert(values[name]) if convert else constant)
            for name, convert, constant in self._places
        ]
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(
                self._text, [value for _, value in bound] if self._is_positional else dict(bound)
            )
            return list(cursor.fetchall())


def _unchanged(value: Any) -> Any:
    return value


@contextmanager
def running_by(mode: str, engine: Engine) -> Iterator[None]:
    """Let `record_instances` run its two frequent statements in a mode."""
    if mode == "Core":
        yield
        return
    keep = Prepared(intake._KEEP_RECEIVING, engine.dialect)
    insert = intake._insert_statement(engine.dialect.name)
    add = Prepared(insert, engine.dialect, intake._instances.c.keys())

    def keep_receiving(connection: Connection, study_uid: str, at: datetime) -> Any:
        rows = keep.rows(connection, {"of_study": study_uid, "at": at})
        return intake._OpenRevision(*rows[0]) if rows else None

    def insert_rows(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> set[str]:
        return {row["sop_instance_uid"] for row in rows if add.rows(connection, row)}

    with (
        patch.object(intake, "_keep_receiving", keep_receiving),
        patch.object(intake, "_insert", insert_rows),
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
