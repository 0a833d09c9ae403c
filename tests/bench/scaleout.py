"""Studies per hour with 1, 2 and 4 grading workers on hosts of their own, and what each part costs.

``python -m tests.bench.scaleout [--studies 10] [--repeats 3]`` runs the whole node, its hosts as
network namespaces on this machine (root), and writes ``docs/results/scaleout.md``. More cores than
this machine has cannot be shown; so the CPU time, statements and bytes of each part are measured,
and what serialises the workers, with workers whose grading costs nothing. `tests.bench.sizing`
computes from these figures what other loads need.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from db import audit
from db.session import unit_of_work
from node.embedded.triton import EmbeddedTriton
from tests.bench.scaleout_node import Node, measuring
from tests.bench.sizing import Figures
from tests.support.builders.made_study import receive_study
from tests.support.builders.synthetic_studies import copy_study, generate_synthetic_study
from tests.support.paths import ROOT
from tests.support.servers.dcmtk import dcmtk_program
from tests.support.servers.ports import free_port
from tests.support.servers.proxies import unix_socket_proxy
from worker.app import DELIVER, QUEUES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


REPORT: Final = ROOT / "docs" / "results" / "scaleout.md"
WORKERS: Final = (1, 2, 4)
IDLE_S: Final = 10.0
_SCRIPTED: Final = "tests.support.servers.scripted_worker"
_APPENDING: Final = (1, 2, 4)


def grade(node: Node, workers: Sequence[str], n_studies: int) -> float:
    """Let workers grade what is queued; return studies per hour until the last is delivered."""
    target = node.count("delivered") + n_studies
    node.wait_for("queued", n_studies)
    began = time.monotonic()
    node.consume(workers, True)
    node.wait_for("delivered", target)
    took_s = time.monotonic() - began
    node.consume(workers, False)
    return n_studies / took_s * 3600


def run_models(
    node: Node, folder: Path, studies: int, repeats: int, stack: ExitStack
) -> tuple[dict[int, list[float]], dict[str, list[dict[str, float]]], int]:
    """Receive, grade and deliver with the shipped models; return rates, phases, images a study."""
    triton = stack.enter_context(EmbeddedTriton(folder / "triton", folder / "triton.log"))
    proxy = stack.enter_context(
        unix_socket_proxy(triton.url.removeprefix("unix:"), node.network.address)
    )
    assert triton.pid is not None
    node.others["Triton"] = triton.pid
    port = free_port()
    (folder / "pacs").mkdir()
    pacs = subprocess.Popen(
        [dcmtk_program("storescp"), "-aet", "PACS", "-od", folder / "pacs", str(port)],
        stdout=subprocess.DEVNULL,
    )
    stack.callback(pacs.wait)
    stack.callback(pacs.terminate)
    site = node.site
    site.settings |= {
        "triton_url": f"{node.network.address}:{proxy.port}",
        "destinations": f"PACS@{node.network.address}:{port}",
    }
    receiver, delivering = node.host("receiver"), node.host("delivering worker")
    site.start_receiver(receiver, "receiver")
    site.start(node.host("housekeeper"), "worker.housekeeper", log="housekeeper")
    site.wait_for(
        site.start_worker(delivering, QUEUES[DELIVER], "delivering", app="worker.app"), "ready"
    )
    workers = node.start_workers("grading worker", max(WORKERS), "worker.app")
    generate_synthetic_study(folder / "study", seed=20)
    source = folder / "study" / "t2-tse-axial"
    images = len(list(source.iterdir()))

    def receive(name: str, n_studies: int) -> None:
        for number in range(n_studies):
            copy_study(source, folder / name / str(number))
        with measuring(node, phases, "receive"):
            for number in range(n_studies):
                to = (receiver.address, str(site.receiver_port))
                command = [dcmtk_program("dcmsend"), "-aec", "EPVSNODE", *to, "+sd"]
                subprocess.run([*command, folder / name / str(number)], check=True)

    phases: dict[str, list[dict[str, float]]] = {}
    rates: dict[int, list[float]] = defaultdict(list)
    receive("warm-up", max(WORKERS))
    grade(node, workers, max(WORKERS))
    phases.clear()
    for repeat in range(repeats):
        for n in WORKERS if repeat % 2 else WORKERS[::-1]:
            receive(f"{repeat}-{n}", studies)
            with measuring(node, phases, f"grade {n}"):
                rates[n].append(grade(node, workers[:n], studies))
            print(f"repeat {repeat}, {n} workers: {rates[n][-1]:.0f} studies/h", flush=True)
    with measuring(node, phases, "idle"):
        time.sleep(IDLE_S)
    return rates, phases, images


def run_scripted(
    node: Node, studies: int, repeats: int
) -> tuple[dict[int, list[float]], dict[str, list[dict[str, float]]], dict[int, list[float]]]:
    """Grade with workers whose grading costs nothing; also sample what their sessions wait for."""
    node.site.settings["destinations"] = ""
    workers = node.start_workers("scripted worker", max(WORKERS), _SCRIPTED)
    phases: dict[str, list[dict[str, float]]] = {}
    rates: dict[int, list[float]] = defaultdict(list)
    waits: dict[int, list[float]] = defaultdict(list)
    number = 0
    for repeat in range(repeats):
        for n in WORKERS if repeat % 2 else WORKERS[::-1]:
            for _ in range(studies):
                number += 1
                with unit_of_work(node.site.engine) as session:
                    receive_study(session, f"1.2.826.{number}")
            with measuring(node, phases, f"scripted {n}"), sampling(node, waits[n]):
                rates[n].append(grade(node, workers[:n], studies))
            print(f"repeat {repeat}, {n} scripted: {rates[n][-1]:.0f} studies/h", flush=True)
    return rates, phases, waits


@contextmanager
def sampling(node: Node, shares: list[float]) -> Iterator[None]:
    """Add the share of the busy sessions' time that they wait for a lock of another session."""
    busy = waiting = 0
    stop = threading.Event()

    def sample() -> None:
        nonlocal busy, waiting
        query = (
            "SELECT count(*), count(*) FILTER (WHERE wait_event_type = 'Lock') FROM "
            "pg_stat_activity WHERE usename = 'epvs_node' AND state <> 'idle'"
        )
        with node.postgres.connect(node.database) as connection:
            while not stop.wait(0.02):
                row: Any = connection.execute(query).fetchone()
                busy, waiting = busy + row[0], waiting + row[1]

    thread = threading.Thread(target=sample)
    thread.start()
    yield
    stop.set()
    thread.join()
    shares.append(waiting / max(busy, 1))


def measure_appending(node: Node, n_threads: int, seconds: float = 3.0) -> float:
    """Transactions per second that append one audit event each, from so many threads."""
    end = time.monotonic() + seconds
    counts = [0] * n_threads

    def work(number: int) -> None:
        while time.monotonic() < end:
            with unit_of_work(node.site.engine) as session:
                audit.append(session, "bench")
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def median_of(runs: Sequence[dict[str, float]], key: str, divisor: float = 1.0) -> float:
    return statistics.median(run.get(key, 0.0) for run in runs) / divisor


def figures(
    phases: dict[str, list[dict[str, float]]],
    images: int,
    studies: int,
    scripted_studies: int,
    appended: float,
) -> Figures:
    """The medians that the sizing uses; grading's are those with one worker."""
    received, graded = phases["receive"], phases["grade 1"]
    idle, scripted = phases["idle"], phases["scripted 1"]
    per_image: Callable[[str], float] = lambda key: median_of(received, key, studies * images)  # noqa: E731
    per_study: Callable[[str], float] = lambda key: median_of(graded, key, studies)  # noqa: E731
    idle_s = median_of(idle, "seconds")
    return Figures(
        images_per_study=images,
        image_bytes=per_image("spool bytes"),
        receiver_cpu_ms_per_image=1e3 * per_image("cpu receiver"),
        postgres_cpu_ms_per_image=1e3 * per_image("cpu PostgreSQL"),
        database_bytes_per_image=per_image("database bytes"),
        wal_bytes_per_image=per_image("WAL bytes"),
        transactions_per_image=per_image("transactions"),
        worker_cpu_s_per_study=per_study("cpu grading worker"),
        triton_cpu_s_per_study=per_study("cpu Triton"),
        delivery_cpu_s_per_study=per_study("cpu delivering worker"),
        postgres_cpu_ms_per_study=1e3 * per_study("cpu PostgreSQL"),
        redis_cpu_ms_per_study=1e3 * per_study("cpu Redis"),
        housekeeper_cpu_ms_per_study=1e3 * per_study("cpu housekeeper"),
        report_bytes_per_study=per_study("reports bytes"),
        database_bytes_per_study=per_study("database bytes"),
        wal_bytes_per_study=per_study("WAL bytes"),
        transactions_per_study=per_study("transactions"),
        statements_per_study=per_study("statements"),
        redis_commands_per_study=per_study("Redis commands"),
        coordination_cpu_ms_per_study=1e3
        * median_of(scripted, "cpu scripted worker", scripted_studies),
        audit_transactions_per_s=appended,
        idle_transactions_per_s=median_of(idle, "transactions", idle_s),
        idle_redis_commands_per_s=median_of(idle, "Redis commands", idle_s),
        idle_cpu_share=sum(median_of(idle, key, idle_s) for key in idle[0] if key[:4] == "cpu "),
    )


def _rates(title: str, rates: dict[int, list[float]], more: dict[int, str], column: str) -> str:
    base = statistics.median(rates[1])
    rows = []
    for n in WORKERS:
        median = statistics.median(rates[n])
        spread = f"{min(rates[n]):.0f} – {max(rates[n]):.0f}"
        rows.append(f"| {n} | {median:.0f} | {spread} | {median / base:.2f} | {more[n]} |")
    head = f"| workers and hosts | studies/h | slowest – fastest | × one | {column} |\n"
    return f"## {title}\n\n{head}|---|---|---|---|---|\n" + "\n".join(rows) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=10, help="graded in each run")
    parser.add_argument("--scripted", type=int, default=200, help="the same, of scripted workers")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--note", default="", help="a sentence on the machine, for the report")
    parser.add_argument("--output", type=Path, default=REPORT)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node = Node(folder, stack)
        rates, phases, images = run_models(node, folder, options.studies, options.repeats, stack)
        scripted, more, waits = run_scripted(node, options.scripted, options.repeats)
        appended = {n: measure_appending(node, n) for n in _APPENDING}
    measured = figures(
        phases | more, images, options.studies, options.scripted, max(appended.values())
    )
    cpu = {
        n: f"{median_of(phases[f'grade {n}'], 'cpu grading worker', options.studies):.2f}"
        for n in WORKERS
    }
    waiting = {n: f"{100 * statistics.median(waits[n]):.0f} %" for n in WORKERS}
    lines = "\n".join(f"| {n} | {rate:.0f} |" for n, rate in appended.items())
    options.output.write_text(
        f"""# Several workers and hosts

Last output of `python -m tests.bench.scaleout --studies {options.studies} --scripted \
{options.scripted} --repeats {options.repeats}` on {os.cpu_count()} cores without a GPU. \
{options.note}

Hosts are network namespaces of one machine: receiver, housekeeper, delivering worker and each
grading worker have one each; PostgreSQL (durable), Redis, Triton and the PACS (storescp) are on the
central host. Workers grade one study at a time. Medians of {options.repeats} repeats in turns.

{_rates("With the shipped models", rates, cpu, "worker's CPU, s/study")}
A study is {images} images, from the first claim of a worker to the last delivery of \
{options.studies} studies. More workers than cores gain nothing here: all parts share the cores.

{_rates("With workers whose grading costs nothing", scripted, waiting, "waiting for locks")}
What the node itself allows: {options.scripted} studies are claimed, read from SQL, reported and
stored, without images, models and destination. The last column is the share of the sessions' busy
time in PostgreSQL that they wait for a lock of another session.

## Appending to the audit trail

Transactions that append wait for each other until their commit is durable.

| threads | transactions/s |
|---|---|
{lines}

## Figures

Grading's with one worker. `tests.bench.sizing` computes with them.

{measured.as_table()}
"""
    )
    print(options.output.read_text())


if __name__ == "__main__":
    main()
