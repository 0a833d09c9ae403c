"""Receivers side by side in one run: images per second and CPU per image, with the same senders.

``python -m tests.bench.ingest [--studies 40] [--repeats 3]`` sends studies of 28 MR images of
384 × 384 pixels of 16 bits with DCMTK's dcmsend and storescu, one association a study, and writes
``docs/results/ingest.md``. Every measurement has a receiver of its own with an empty store; within
a repeat they come in random order. Senders run as installed (Nagle's algorithm on) with one
association, and with ``TCP_NODELAY=1`` in their environment with 1, 4 and 8.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

from tests.bench.ingest_receivers import RECEIVERS, Running
from tests.paths import ROOT
from tests.servers.dcmtk import dcmtk_program
from tests.servers.mr_series import write_series
from tests.servers.receiver import AE_TITLE

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGES: Final = 28
REPORT: Final = ROOT / "docs" / "results" / "ingest.md"
OURS, UNSYNCED, HANDLER = "ours, durable", "ours, without fsync", "pynetdicom handler"
STORESCP, ORTHANC = "storescp", "Orthanc"
NOTES: Final = """\
Studies of 28 images of 384² × 16 bit, one association each, after one study to warm up; medians.
Beside senders as installed, storescp and Orthanc run as installed; beside senders with
`TCP_NODELAY=1` they have it too, and storescp has `--max-pdu 131072`. Ours alone is durable: it
answers after the fsyncs of file and folder and the commit of the row. Orthanc syncs its files;
storescp and the handler sync nothing. "Without fsync" is our receiver with fsync replaced in its
process and SQLite at `synchronous=OFF`, which no setting of the product can do. Only ratios within
one table mean anything."""

BOUNDS: Final = """\
## What bounds ours
With one association nothing can be grouped: each image waits for three commits of the disk's
journal in turn (file, folder, row). Over several associations the kernel groups the fsyncs and the
ledger the rows; then the CPU of the row bounds it: writing it by SQLAlchemy costs several times
what reading, hashing and writing the image does."""


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


def report(
    results: Results, setups: Sequence[Setup], arguments: argparse.Namespace, n_repeats: int
) -> str:
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}) shared by senders and receiver, load "
        f"average {os.getloadavg()[0]:.1f} at the end. {arguments.note}"
    )
    options = f"--studies {arguments.studies} --repeats {n_repeats}"
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
    return "\n".join([*lines, *targets(results, setups), "", BOUNDS, ""])


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
            # After each repeat: a long run that is cut short leaves what it has.
            arguments.output.write_text(report(results, setups, arguments, repeat + 1))


if __name__ == "__main__":
    main()
