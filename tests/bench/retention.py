"""A year of studies, in SQL and with small files: is the disk flat, are the views fast?

``python -m tests.bench.retention --folder DIR`` makes `--studies` studies a day for `--days` days,
each with the rows of a study that was received, graded and delivered, and files of a few bytes.
After each day retention removes what is due, as the housekeeper does. On the last day much is
open: `tests.bench.retention_year.leave_work_open`. Run again with the same folder, it goes on where
it was ended. ``--postgresql`` uses a PostgreSQL server of its own, which
ends with the run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Boolean, func, select, text

from db import commands, migrate, outbox
from db.models import (
    AuditEvent,
    Base,
    Instance,
    Revision,
    Study,
)
from db.retention import policy
from db.retention.forecast import read_growth
from db.retention.policy import Policy
from db.retention.pruning import prune
from db.session import create_engine, unit_of_work
from tests.bench.retention_year import START, Year, leave_work_open
from tests.support.servers.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine, TextClause
    from sqlalchemy.orm import Session

REPEATS: Final = 11
LIMIT_MS: Final = 100.0
VACUUM_DAYS: Final = 10
SHADOW_AGREEMENT: Final = """
SELECT model, reported_version, shadow_version, COUNT(*) AS studies,
       SUM(CASE WHEN agree THEN 1 ELSE 0 END) AS agreed,
       SUM(CASE WHEN ABS(reported_rating - shadow_rating) <= 1 THEN 1 ELSE 0 END) AS within_one,
       COUNT(failure) AS failed
  FROM shadow_results GROUP BY model, reported_version, shadow_version
"""
"""As in docs/sql.md."""


class Day(NamedTuple):
    """What was measured at the end of a day; kept in a file beside the database."""

    number: int
    slowest_s: float
    """Longest pass of retention."""
    files: int | None
    """None: not counted on that day."""
    blocks: int
    """Bytes of their disk blocks."""
    database: int
    """Bytes."""

    def show(self) -> None:
        """Print the row of the table, if the files were counted."""
        if self.files is not None:
            print(
                f"| {self.number} | {self.files} | {self.blocks / 2**20:.0f} "
                f"| {self.database / 2**20:.0f} | {self.slowest_s:.2f} |",
                flush=True,
            )


def abandon_failed(engine: Engine, now: datetime) -> None:
    """Let an operator decide about the failed studies, which are kept until then."""
    with unit_of_work(engine) as session:
        failed = session.scalars(
            select(Revision.study_uid).where(
                Revision.state == "failed", Revision.abandoned_at.is_(None)
            )
        ).all()
        for study_uid in failed:
            commands.abandon(session, study_uid=study_uid, operator="operator", now=now)


def vacuum(engine: Engine) -> None:
    """Let PostgreSQL count rows and mark pages, as its autovacuum does on a server."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def usage(folder: Path) -> tuple[int, int]:
    """Count the files and the bytes of their disk blocks."""
    files = blocks = 0
    for name in ("spool", "reports"):
        for path in (folder / name).glob("*/*"):
            files += 1
            blocks += path.stat().st_blocks * 512
    return files, blocks


def database_bytes(engine: Engine) -> int:
    """Size of the database."""
    with unit_of_work(engine, read_only=True) as session:
        if engine.dialect.name == "postgresql":
            return session.scalar(text("SELECT pg_database_size(current_database())")) or 0
        pages = session.scalar(text("PRAGMA page_count")) or 0
        return int(pages) * int(session.scalar(text("PRAGMA page_size")) or 0)


def measure(engine: Engine, days: int) -> list[tuple[str, float, float, int]]:
    """Time what people and the node ask, in ms: median and least, and the number of rows."""
    last = START + timedelta(days=days - 1)
    cutoff = last - timedelta(days=90)
    week = f"{last - timedelta(days=7):%Y-%m-%d %H:%M:%S}"
    queries = {
        "worklist_results of a day": f"WHERE study_date = '{last:%Y%m%d}'",
        "worklist_results of a patient": "WHERE patient_id = 'P1000'",
        "worklist_results of a study": f"WHERE study_uid = '1.2.840.99.{days - 1}.7'",
        "turnaround of a study": f"WHERE study_uid = '1.2.840.99.{days - 1}.7'",
        "turnaround of a day": f"WHERE opened_at >= '{last:%Y-%m-%d %H:%M:%S}'",
        "turnaround of a week": f"WHERE opened_at > '{week}'",
        "failures": "",
        "deliveries_pending": "",
        "refusals": "",
        "model_usage": "",
        "shadow_results of a study": f"WHERE study_uid = '1.2.840.99.{days - 1}.7'",
    }
    measured = []
    for name, where in queries.items():
        statement = text(f"SELECT * FROM {name.split()[0]} {where}")
        measured.append((name, *_time(engine, partial(_rows, statement))))
    measured.append(
        (
            "shadow_results: agreement in a month",
            *_time(engine, partial(_rows, text(SHADOW_AGREEMENT))),
        )
    )
    own: dict[str, Callable[[Session], list[Any]]] = {
        "images that are due (50)": lambda s: list(
            s.scalars(policy.studies_with_removable_images(cutoff).limit(50))
        ),
        "reports that are due (50)": lambda s: list(
            s.execute(policy.revisions_with_removable_reports(cutoff).limit(50))
        ),
        "disk forecast": lambda s: [read_growth(s, now=last)],
        "notifications that are due": lambda s: list(outbox.due(s, now=last)),
    }
    return measured + [(name, *_time(engine, ask)) for name, ask in own.items()]


def _rows(statement: TextClause, session: Session) -> list[Any]:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SET LOCAL jit = on"))  # as an administrator's client has it
    return list(session.execute(statement))


def _time(engine: Engine, ask: Callable[[Session], list[Any]]) -> tuple[float, float, int]:
    times, rows = [], 0
    for _ in range(REPEATS):
        with unit_of_work(engine, read_only=True) as session:
            began = time.perf_counter()
            rows = len(ask(session))
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), min(times), rows


def run(engine: Engine, folder: Path, options: argparse.Namespace, kind: str) -> bool:
    """Make the days that are missing, print the tables; return whether everything held."""
    year = Year(engine, folder, options.studies, options.instances)
    rules = Policy(*(timedelta(days=d) for d in (options.keep, options.keep_reports, 90, 365)))
    print(f"### {kind}\n")
    print("| day | images and reports: files | MB on disk | database MB | slowest pass s |")
    print("|---|---|---|---|---|")
    log = folder / "days.jsonl"
    if year.next_day() == 0:  # the server of an earlier run is gone
        log.unlink(missing_ok=True)
    made = [Day(*json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
    for each in made:
        each.show()
    for day in range(year.next_day(), options.days):
        year.make(day)
        if day % VACUUM_DAYS == 1 and engine.dialect.name == "postgresql":
            vacuum(engine)  # the server's autovacuum is off
        abandon_failed(engine, START + timedelta(days=day))
        now = START + timedelta(days=day + 1)
        pruned, slowest = None, 0.0
        while pruned is None or pruned.images.files or pruned.reports.files:
            began = time.perf_counter()
            pruned = prune(engine, rules, now=now)
            slowest = max(slowest, time.perf_counter() - began)
        is_shown = (day + 1) % options.show == 0 or day + 1 == options.days
        files, blocks = usage(folder) if is_shown else (None, 0)
        made.append(Day(day + 1, slowest, files, blocks, database_bytes(engine)))
        with log.open("a") as lines:
            lines.write(json.dumps(made[-1]) + "\n")
        made[-1].show()
    leave_work_open(engine, options.days - 1)
    if engine.dialect.name == "postgresql":
        vacuum(engine)
    with unit_of_work(engine, read_only=True) as session:
        rows = session.scalar(select(func.count()).select_from(Instance))
        events = session.scalar(select(func.count()).select_from(AuditEvent))
        waiting = session.scalar(select(func.count()).where(Study.files_removed_at.is_(None)))
    print(f"\n{rows} instances, {events} audit events; studies with files: {waiting}.")
    passes = [each.slowest_s for each in made]
    print(
        "The slowest pass of retention (50 studies) of each day: median "
        f"{statistics.median(passes):.2f} s, largest {max(passes):.2f} s.\n"
    )
    is_fast = show_queries(engine, options.days)
    begins = max(options.keep, options.keep_reports)
    full = [d.files for d in made if d.files is not None and d.number > begins]
    return is_fast and (not full or max(full) <= 1.02 * min(full))


def copy_year(source: Engine, server: PostgresServer, name: str) -> None:
    """Copy every row into PostgreSQL, as fast as it takes them."""
    with source.connect() as rows, server.connect(name) as target:
        target.execute("SET session_replication_role = replica")  # no triggers, no keys checked
        target.execute("SET TIME ZONE 'UTC'")
        for table in Base.metadata.sorted_tables:
            columns = [column.name for column in table.columns]
            kinds = {c.name for c in table.columns if isinstance(c.type, Boolean)}
            places = [n for n, column in enumerate(columns) if column in kinds]
            listed = ", ".join(columns)
            target.execute(f"TRUNCATE {table.name} CASCADE".encode())
            with target.cursor().copy(f"COPY {table.name} ({listed}) FROM STDIN".encode()) as copy:
                for row in rows.exec_driver_sql(f"SELECT {listed} FROM {table.name}"):
                    values = list(row)
                    for place in places:
                        values[place] = bool(values[place])
                    copy.write_row(values)


def measure_copy(folder: Path, days: int) -> bool:
    """Copy the year that is in SQLite to PostgreSQL, and ask it the same."""
    server = PostgresServer()
    try:
        server.start()
        name = server.create_database()
        migrate.upgrade(server.owner_url(name), runtime_url=server.url(name))
        copy_year(create_engine(f"sqlite:///{folder / 'year.sqlite'}"), server, name)
        engine = create_engine(server.owner_url(name))
        vacuum(engine)
        size = database_bytes(engine) / 2**20
        print(f"### The same year in PostgreSQL\n\n{size:.0f} MB.\n")
        held = show_queries(engine, days)
        engine.dispose()
        return held
    finally:
        server.remove()


def show_queries(engine: Engine, days: int) -> bool:
    """Print the times of all queries; return whether all are short."""
    print(f"Medians of {REPEATS}; load average {os.getloadavg()[0]:.1f}.\n")
    print("| query | median ms | least ms | rows | under 100 ms |\n|---|---|---|---|---|")
    measured = measure(engine, days)
    for name, ms, least, n in measured:
        is_fast = "yes" if ms < LIMIT_MS else "no"
        print(f"| {name} | {ms:.1f} | {least:.1f} | {n} | {is_fast} |", flush=True)
    print()
    return all(ms < LIMIT_MS for _, ms, _, _ in measured)


def main() -> None:
    """Run the simulation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--keep", type=int, default=90, help="days of images")
    parser.add_argument("--keep-reports", type=int, default=180, help="days of reports")
    parser.add_argument("--show", type=int, default=30, help="a row of the table every N days")
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument(
        "--copy", action="store_true", help="copy the year of --folder to PostgreSQL and ask that"
    )
    options = parser.parse_args()
    folder = options.folder.absolute()
    print(
        f"`python -m tests.bench.retention --days {options.days} --studies {options.studies} "
        f"--instances {options.instances} --keep {options.keep} --keep-reports "
        f"{options.keep_reports}{' --postgresql' if options.postgresql else ''}"
        f"{' --copy' if options.copy else ''}`, "
        f"{os.cpu_count()} CPUs, Python {platform.python_version()}.\n"
    )
    if options.copy:
        sys.exit(not measure_copy(folder, options.days))
    if options.postgresql:
        server = PostgresServer()
        try:
            server.start()
            name = server.create_database()
            migrate.upgrade(server.owner_url(name), runtime_url=server.url(name))
            engine = create_engine(server.owner_url(name))
            held = run(engine, folder / "postgresql", options, "PostgreSQL")
            engine.dispose()
        finally:
            server.remove()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{folder / 'year.sqlite'}"
        migrate.upgrade(url)
        held = run(create_engine(url), folder / "sqlite", options, "SQLite")
    sys.exit(not held)


if __name__ == "__main__":
    main()
