"""Seconds from a grade to its delivery while others wait, without and with a silent destination.

``python -m tests.bench.delivery_latency [--studies 20] [--repeats 2]`` sends studies at once to the
embedded stack with the shipped models, and prints a Markdown report;
``docs/results/delivery-latency.md`` is its last committed output. The silent destination swallows
packets: every attempt at it lasts until the network times out.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from core.settings import load_settings
from db.enums import DeliveryState
from db.models import Delivery, GradeRow
from db.session import create_engine, unit_of_work
from node.embedded.process import free_port
from node.embedded.stack import EmbeddedStack, delivering_processes, embedded_settings
from node.sending import send
from tests.support.builders.synthetic_studies import copy_study, generate_synthetic_study
from tests.support.servers.silent import silent_destination
from tests.support.servers.storescp import run_storescp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

LIMIT_S = 3.0
"""What is promised of the 95th percentile."""
_TIMEOUT_S = 1800.0


@dataclass
class Run:
    """One run: the seconds from each grade to its delivery, and what the silent one had."""

    seconds: list[float]
    graded_s: float
    processes: int
    most_stuck: int = 0
    silent_attempts: int = 0


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def measure(folder: Path, source: Path, n_studies: int, *, silent: bool) -> Run:
    """Send the studies to a new stack and wait until the PACS has all reports."""
    studies = folder / "studies"
    for number in range(n_studies):
        copy_study(source, studies / str(number))
    with ExitStack() as stack:
        pacs = stack.enter_context(run_storescp(folder, None))
        destinations = [pacs.name]
        if silent:
            destinations.append(stack.enter_context(silent_destination()).name)
        settings = embedded_settings(
            load_settings(
                data_dir=folder / "data",
                host="127.0.0.1",
                port=free_port(),
                quiet_period_s=2.0,
                destinations=",".join(destinations),
            )
        )
        running = stack.enter_context(EmbeddedStack(settings))
        engine = create_engine(settings.database_url)
        stack.callback(engine.dispose)
        with redirect_stdout(sys.stderr):  # the report alone
            send([studies], f"{settings.ae_title}@127.0.0.1:{settings.port}")
        began = time.monotonic()
        most_stuck = 0
        while count(engine, pacs.name, DeliveryState.DELIVERED) < n_studies:
            running.supervise()
            if silent:
                stuck = count(engine, destinations[1], DeliveryState.SENDING)
                most_stuck = max(most_stuck, stuck)
            if time.monotonic() - began > _TIMEOUT_S:
                raise TimeoutError(f"not delivered within {_TIMEOUT_S:.0f} s")
            time.sleep(0.5)
        took_s = time.monotonic() - began
        seconds = list(latencies(engine, pacs.name))
        attempts = sum_of_attempts(engine, destinations[1]) if silent else 0
        return Run(seconds, took_s, delivering_processes(settings), most_stuck, attempts)


def count(engine: Engine, destination: str, state: DeliveryState) -> int:
    """Count the deliveries to a destination in a state."""
    with unit_of_work(engine, read_only=True) as session:
        return session.scalars(
            select(func.count()).where(Delivery.destination == destination, Delivery.state == state)
        ).one()


def sum_of_attempts(engine: Engine, destination: str) -> int:
    """Count the attempts at a destination."""
    with unit_of_work(engine, read_only=True) as session:
        found = session.scalars(
            select(func.sum(Delivery.attempt)).where(Delivery.destination == destination)
        )
        return found.one() or 0


def latencies(engine: Engine, destination: str) -> Iterator[float]:
    """Yield the seconds from each grade to its delivery."""
    with unit_of_work(engine, read_only=True) as session:
        rows = session.execute(
            select(GradeRow.graded_at, Delivery.delivered_at)
            .join(Delivery, Delivery.revision_id == GradeRow.revision_id)
            .where(Delivery.destination == destination)
        ).all()
    for graded_at, delivered_at in rows:
        if delivered_at is not None:
            yield (delivered_at - graded_at).total_seconds()


def report(runs: dict[bool, list[Run]], n_studies: int) -> Iterator[str]:
    """Yield the lines of the report."""
    yield "# From grade to delivery\n"
    yield (
        f"{n_studies} studies sent at once to `epvs-node up` on {os.cpu_count()} cores, with the "
        "shipped models; one is graded at a time. Destinations: DCMTK's storescp and, in the "
        "second line, one that swallows packets. Percentiles by nearest rank over "
        f"{len(runs[True])} runs each; the promise is p95 ≤ {LIMIT_S:.0f} s.\n"
    )
    yield (
        "| destinations | p50 (s) | p95 (s) | longest (s) | last delivered after (s) "
        "| delivering processes | stuck at once on the silent one | attempts at it |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for silent, name in ((False, "PACS"), (True, "PACS and a silent one")):
        seconds = [value for run in runs[silent] for value in run.seconds]
        yield (
            f"| {name} | {percentile(seconds, 0.5):.2f} | {percentile(seconds, 0.95):.2f} "
            f"| {max(seconds):.2f} | {statistics.median(r.graded_s for r in runs[silent]):.0f} "
            f"| {runs[silent][0].processes} | {max(r.most_stuck for r in runs[silent])} "
            f"| {sum(r.silent_attempts for r in runs[silent])} |"
        )
    worst = max(
        percentile([v for run in kind for v in run.seconds], 0.95) for kind in runs.values()
    )
    yield f"\nThe promise is {'kept' if worst <= LIMIT_S else 'NOT kept'}."


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    runs: dict[bool, list[Run]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder)
        source = generate_synthetic_study(work_dir / "study", seed=20) / "t2-tse-axial"
        for repeat in range(options.repeats):
            for silent in (False, True):
                target = work_dir / f"{repeat}-{silent}"
                runs[silent].append(measure(target, source, options.studies, silent=silent))
    for line in report(runs, options.studies):
        print(line)


if __name__ == "__main__":
    main()
