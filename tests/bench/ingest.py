"""Receivers side by side in one run: images per second and CPU per image, with the same senders.

``python -m tests.bench.ingest [--studies 40] [--repeats 3]`` sends studies of 28 MR images of
384 × 384 pixels of 16 bits with DCMTK's dcmsend and storescu, one association a study, and writes
``docs/results/ingest.md``. Every measurement has a receiver of its own with an empty store; within
a repeat they come in random order. Senders run as installed (Nagle's algorithm on) with one
association, and with ``TCP_NODELAY=1`` in their environment with 1, 4 and 8.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

from tests.bench.ingest_receivers import RECEIVERS, Running
from tests.support.builders.mr_series import write_series
from tests.support.paths import ROOT
from tests.support.servers.dcmtk import dcmtk_program
from tests.support.servers.receiver import AE_TITLE

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGES: Final = 28
IMAGE_BYTES: Final = 2 * 384 * 384
REPORT: Final = ROOT / "docs" / "results" / "ingest.md"
OURS, UNSYNCED, HANDLER = "ours, durable", "ours, without fsync", "pynetdicom handler"
STORESCP, ORTHANC = "storescp", "Orthanc"
NOTES: Final = """\
Studies of 28 images of 384² × 16 bit, one association each, after one study to warm up; medians.
Beside senders as installed, storescp and Orthanc run as installed; beside senders with
`TCP_NODELAY=1` they have it too, and storescp has `--max-pdu 131072`. Only ours is durable: it
responds after the fsyncs of file and folder and the commit of the row. Orthanc syncs its files;
storescp and the handler sync nothing. "Without fsync" is our receiver with fsync replaced in its
process and SQLite at `synchronous=OFF`, which no setting of the product can do. Only ratios within
one table mean anything."""

BOUNDS: Final = """\
## What bounds ours
Making an image durable, and nothing else, takes {wall:.2f} ms, {cpu:.2f} ms of them CPU. That is a
loop over the system calls that 0x0000 stands for (write, SHA-256, fsync,
rename, fsync of the folder, one row committed by SQLite with `synchronous=FULL`), measured in
this run, without network, protocol or other images beside it.
storescp takes {storescp_wall:.2f} ms for an image of one association, that
of the sender included, and {storescp_cpu:.2f} ms of CPU: it neither hashes nor syncs. So durable
storing alone is {cpu_ratio:.1f} × storescp's CPU, and where nothing of it overlaps with the rest,
as with one association, it leaves {rate_ratio:.2f} × storescp's rate at best.

With one association nothing can be grouped: each image waits for its own syncs, and sender and
receiver wait for each other. With several, the kernel groups the fsyncs and
the instance registry groups the rows. Then the CPU, which senders and receiver share, is the
limit: the sender's, the storing, and Python, which reads PDUs and header and
hands the row to the registry's thread. "2 processes" share the port
(`EPVS_RECEIVER_PROCESSES=2`) and SQLite's lock."""


class Setup(NamedTuple):
    """How a measurement sends."""

    sender: str
    nagle: bool
    associations: int

    def __str__(self) -> str:
        kind = "as installed" if self.nagle else "TCP_NODELAY=1"
        return f"{self.sender}, {kind}, {self.associations} association(s)"


@dataclass(frozen=True)
class Measurement:
    """Of one receiver in one setup."""

    images_per_s: float
    cpu_ms_per_image: float
    sender_cpu_ms_per_image: float
    complete: bool


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and its children, the ended ones included."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:  # its parent has it in a moment
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def senders_cpu_s() -> float:
    """CPU seconds of child processes that have ended; while a receiver runs, those are senders."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def send(running: Running, setup: Setup, studies: Sequence[Path]) -> bool:
    environment = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    if not setup.nagle:
        environment["TCP_NODELAY"] = "1"

    def one(study: Path) -> bool:
        receiver = ["-aec", AE_TITLE, "127.0.0.1", str(running.port)]
        command = [dcmtk_program(setup.sender), *receiver, "+sd", str(study)]
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=600, check=False
        )
        return done.returncode == 0

    with ThreadPoolExecutor(setup.associations) as pool:
        return all(pool.map(one, studies))


def measure(name: str, setup: Setup, studies: Sequence[Path], folder: Path) -> Measurement:
    with RECEIVERS[name](folder, not setup.nagle) as running:
        warm = send(running, setup, studies[:1])
        process = psutil.Process(running.process.pid)
        cpu, senders_cpu, began = cpu_s(process), senders_cpu_s(), time.monotonic()
        sent = send(running, setup, studies[1:])
        wall_s = time.monotonic() - began
        senders_cpu = senders_cpu_s() - senders_cpu
        time.sleep(0.2)  # a receiver that forks collects its children
        cpu = cpu_s(process) - cpu
        stored = running.n_stored()
    # Not removed before the end: ext4 without a journal looks for a free inode among all that were
    # removed in the last minutes, which would be charged to the receivers that come after.
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)
    os.sync()
    n_images = (len(studies) - 1) * IMAGES
    return Measurement(
        images_per_s=n_images / wall_s,
        cpu_ms_per_image=cpu / n_images * 1000,
        sender_cpu_ms_per_image=senders_cpu / n_images * 1000,
        complete=warm and sent and stored == n_images + IMAGES,
    )


class Storing(NamedTuple):
    """What it takes to store an image, in ms."""

    wall: float
    cpu: float


def store_alone(folder: Path, n_images: int = 300) -> Storing:
    """Make images durable by the bare system calls, one after the other."""
    content = os.urandom(IMAGE_BYTES)
    folder.mkdir()
    with closing(sqlite3.connect(folder / "rows.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE images (sha256 TEXT PRIMARY KEY, path TEXT)")
        began, cpu = time.monotonic(), time.process_time()
        for number in range(n_images):
            unique = content[:-8] + number.to_bytes(8, "big")
            temporary = f"{folder}/{number}"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(descriptor, unique)
            sha256 = hashlib.sha256(unique).hexdigest()
            os.fsync(descriptor)
            os.rename(temporary, f"{folder}/{sha256}.dcm")  # noqa: PTH104 - as the receiver does
            os.close(descriptor)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(descriptor)
            os.close(descriptor)
            connection.execute("INSERT INTO images VALUES (?, ?)", (sha256, temporary))
        wall, cpu = time.monotonic() - began, time.process_time() - cpu
    return Storing(wall / n_images * 1000, cpu / n_images * 1000)


Results = dict[tuple[Setup, str], list[Measurement]]


def median(results: Results, setup: Setup, name: str, field: str) -> float:
    return statistics.median(getattr(m, field) for m in results[setup, name])


def median_rate(results: Results, setup: Setup, name: str) -> float:
    return median(results, setup, name, "images_per_s")


def targets(results: Results, setups: Sequence[Setup]) -> list[str]:
    """Rows of issue 6's aims: setup, aim, measured."""
    rows = []

    def compare(setup: Setup, other: str, aim: float) -> None:
        ratio = median_rate(results, setup, OURS) / median_rate(results, setup, other)
        met = "met" if ratio >= aim else "**missed**"
        rows.append(f"| {setup} | ≥ {aim:g} × {other} | {ratio:.2f} | {met} |")

    for setup in setups:
        if setup.nagle:
            compare(setup, STORESCP, 10)
            compare(setup, ORTHANC, 10)
            continue
        compare(setup, STORESCP, 0.9 if setup.associations == 1 else 1.0)
        compare(setup, ORTHANC, 2)
        compare(setup, HANDLER, 4)
        ours, theirs = (
            median(results, setup, name, "cpu_ms_per_image") for name in (OURS, STORESCP)
        )
        cpu = ours / theirs
        met = "met" if cpu <= 1.5 else "**missed**"
        rows.append(f"| {setup} | CPU ≤ 1.5 × {STORESCP} | {cpu:.2f} | {met} |")
    return rows


def bounds(results: Results, setups: Sequence[Setup], alone: Sequence[Storing]) -> str:
    one = next(setup for setup in setups if not setup.nagle)
    wall = statistics.median(storing.wall for storing in alone)
    cpu = statistics.median(storing.cpu for storing in alone)
    storescp_wall = 1000 / median_rate(results, one, STORESCP)
    storescp_cpu = median(results, one, STORESCP, "cpu_ms_per_image")
    return BOUNDS.format(
        wall=wall,
        cpu=cpu,
        storescp_wall=storescp_wall,
        storescp_cpu=storescp_cpu,
        cpu_ratio=cpu / storescp_cpu,
        rate_ratio=storescp_wall / (storescp_wall + wall),
    )


def report(
    results: Results,
    setups: Sequence[Setup],
    alone: Sequence[Storing],
    arguments: argparse.Namespace,
) -> str:
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}) shared by senders and receiver, load "
        f"average {os.getloadavg()[0]:.1f} at the end. {arguments.note}"
    )
    options = f"--studies {arguments.studies} --repeats {len(alone)}"
    lines = [
        "# Receivers side by side",
        "",
        f"`python -m tests.bench.ingest {options}`; {arguments.studies - 1} studies timed, "
        + machine,
        "",
        NOTES,
    ]
    for setup in setups:
        lines += ["", f"## {setup}", ""]
        lines += [
            "| receiver | images/s | × storescp | CPU ms/image | sender's |",
            "|---|---|---|---|---|",
        ]
        base = median_rate(results, setup, STORESCP)
        for name in RECEIVERS:
            rate = median_rate(results, setup, name)
            cpu = median(results, setup, name, "cpu_ms_per_image")
            sender = median(results, setup, name, "sender_cpu_ms_per_image")
            lost = "" if all(m.complete for m in results[setup, name]) else " (**incomplete**)"
            lines.append(
                f"| {name}{lost} | {rate:.0f} | {rate / base:.2f} | {cpu:.2f} | {sender:.2f} |"
            )
    lines += ["", "## Aims", "", "| setup | aim | measured | |", "|---|---|---|---|"]
    return "\n".join([*lines, *targets(results, setups), "", bounds(results, setups, alone), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=40, help="one of them to warm up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--senders", nargs="+", default=["dcmsend", "storescu"])
    parser.add_argument("--associations", nargs="+", type=int, default=[1, 4, 8])
    parser.add_argument("--note", default="", help="a sentence on the machine, for the report")
    parser.add_argument("--output", type=Path, default=REPORT)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no receiver is left running
    setups = [
        setup
        for sender in arguments.senders
        for setup in (
            Setup(sender, True, 1),
            *(Setup(sender, False, count) for count in arguments.associations),
        )
    ]
    results: Results = {}
    alone: list[Storing] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        studies = [work / "studies" / str(number) for number in range(arguments.studies)]
        for number, folder in enumerate(studies):
            write_series(folder, IMAGES, study=f"1.2.{number + 1}", size=384)
        for repeat in range(arguments.repeats):
            jobs = [(setup, receiver) for setup in setups for receiver in RECEIVERS]
            random.Random(repeat).shuffle(jobs)
            for setup, receiver in jobs:
                folder = Path(tempfile.mkdtemp(dir=work)) / "receiver"
                measured = measure(receiver, setup, studies, folder)
                results.setdefault((setup, receiver), []).append(measured)
                print(repeat, setup, receiver, measured, flush=True)
            alone.append(store_alone(Path(tempfile.mkdtemp(dir=work)) / "alone"))
            # After each repeat: a long run that is cut short leaves what it has.
            arguments.output.write_text(report(results, setups, alone, arguments))


if __name__ == "__main__":
    main()
