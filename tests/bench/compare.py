"""Compares this checkout with another one, side by side: receiving and grading.

``python -m tests.bench.compare OTHER [--repeats 5]`` takes turns between the two checkouts, each
with its own ``.venv``. A receiver of each is sent studies by DCMTK, and each grades the same
study by its own ``tests.bench.pipeline``. It prints a Markdown report: medians, and the ratio of
this checkout to the other one. It uses public interfaces only, so any two versions can be compared.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from tests.bench.ingest import IMAGES, Setup, cpu_s, send
from tests.bench.ingest_receivers import Running
from tests.support.builders.mr_series import write_series
from tests.support.builders.synthetic_studies import generate_synthetic_study
from tests.support.paths import ROOT, SAMPLE_DATA
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import AE_TITLE, accepts_connections, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SETUPS: Final = (
    Setup("dcmsend", True, 1),
    Setup("dcmsend", False, 1),
    Setup("dcmsend", False, 4),
    Setup("dcmsend", False, 8),
)
_ROWS: Final = {"files to rating": r"files to rating[^|]*", "whole pipeline": r"\*\*all\*\*"}


def _environment(checkout: Path) -> dict[str, str]:
    """Variables under which a process of `checkout` imports that checkout's code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EPVS_")}
    return {**kept, "PYTHONPATH": str(checkout)}


def _python(checkout: Path) -> str:
    return str(checkout / ".venv" / "bin" / "python")


@contextmanager
def receiver_of(checkout: Path, folder: Path) -> Iterator[Running]:
    """Run the receiver of a checkout on a fresh SQLite database and an empty spool."""
    port = free_port()
    environment = _environment(checkout) | {
        "EPVS_AE_TITLE": AE_TITLE,
        "EPVS_CALLERS": "*@127.0.0.1",
        "EPVS_DATA_DIR": str(folder),
        "EPVS_HOST": "127.0.0.1",
        "EPVS_PORT": str(port),
        "EPVS_SPOOL_RESERVE_MB": "0",
    }
    python = _python(checkout)
    subprocess.run(
        [python, "-m", "node", "migrate"],
        env=environment,
        cwd=checkout,
        check=True,
        capture_output=True,
    )
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "receiver"], env=environment, cwd=checkout, stderr=log
        )
    try:
        wait_until(lambda: accepts_connections(port) or process.poll() is not None)
        assert process.poll() is None, f"the receiver of {checkout} did not start"
        yield Running(port, process, folder / "spool")
    finally:
        process.terminate()
        process.wait(30)


def receive(
    checkout: Path, setup: Setup, studies: Sequence[Path], folder: Path
) -> tuple[float, float]:
    """Images per second, and CPU milliseconds per image, of a checkout's receiver."""
    with receiver_of(checkout, folder) as running:
        assert send(running, setup, studies[:1])
        process = psutil.Process(running.process.pid)
        cpu, began = cpu_s(process), time.monotonic()
        assert send(running, setup, studies[1:])
        wall_s, cpu = time.monotonic() - began, cpu_s(process) - cpu
        assert running.n_stored() == len(studies) * IMAGES
    # Truncated, not removed: see `tests.bench.ingest.measure`.
    for path in folder.rglob("*.dcm"):
        os.truncate(path, 0)
    os.sync()
    n_images = (len(studies) - 1) * IMAGES
    return n_images / wall_s, cpu / n_images * 1000


def grade(checkout: Path, study: Path, runs: int) -> dict[str, float]:
    """Median seconds of the pipeline of a checkout, from the rows of its own bench."""
    bench = ["-m", "tests.bench.pipeline", "--study", str(study), "--runs", str(runs)]
    done = subprocess.run(
        [_python(checkout), *bench],
        env=_environment(checkout),
        cwd=checkout,
        check=True,
        capture_output=True,
        text=True,
    )
    found = {}
    for name, title in _ROWS.items():
        match = re.search(rf"^\| (?:\*\*)?{title}(?:\*\*)? \| ([0-9.]+)", done.stdout, re.MULTILINE)
        assert match is not None, f"no row {name!r} in the report of {checkout}"
        found[name] = float(match[1])
    return found


Figures = dict[tuple[str, str], list[float]]
"""Values of each quantity, by its name and ``"this"`` or ``"other"``."""


def rows(figures: Figures) -> Iterator[str]:
    """Yield the lines of the report's table."""
    yield "| quantity | other checkout | this checkout | ratio |"
    yield "|---|---|---|---|"
    for quantity in dict.fromkeys(name for name, _ in figures):
        this, other = (statistics.median(figures[quantity, side]) for side in ("this", "other"))
        # Seconds and milliseconds are better when small, rates when large.
        ratio = this / other if "images/s" in quantity else other / this
        yield f"| {quantity} | {other:.2f} | {this:.2f} | {ratio:.2f} |"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, help="the other checkout, with its .venv")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--studies", type=int, default=20, help="one of them to warm up")
    parser.add_argument("--gradings", type=int, default=3, help="runs in each turn")
    arguments = parser.parse_args()
    checkouts = {"other": arguments.other.absolute(), "this": ROOT}
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        studies = [work / "studies" / str(number) for number in range(arguments.studies)]
        for number, folder in enumerate(studies):
            write_series(folder, IMAGES, study=f"1.2.{number + 1}", size=384)
        # Named, because a checkout elsewhere may not have the sample data beside it.
        graded = SAMPLE_DATA / "study-brain-siemens"
        if not graded.is_dir():
            graded = generate_synthetic_study(work / "graded", seed=20)
        for repeat in range(arguments.repeats):
            sides = sorted(checkouts, reverse=bool(repeat % 2))
            for setup in SETUPS:
                for side in sides:
                    folder = Path(tempfile.mkdtemp(dir=work)) / "data"
                    rate, cpu = receive(checkouts[side], setup, studies, folder)
                    figures.setdefault((f"{setup}: images/s", side), []).append(rate)
                    figures.setdefault((f"{setup}: CPU ms/image", side), []).append(cpu)
            for side in sides:
                for quantity, seconds in grade(checkouts[side], graded, arguments.gradings).items():
                    figures.setdefault((f"{quantity}: seconds", side), []).append(seconds)
            print(f"repeat {repeat + 1} of {arguments.repeats} done", file=sys.stderr, flush=True)
    print(
        f"# Two checkouts side by side\n\n`python -m tests.bench.compare` with {arguments.repeats} "
        f"repeats, {arguments.studies - 1} studies of {IMAGES} images timed in each turn, "
        f"{arguments.gradings} gradings of {graded.name} in each turn; "
        f"{os.cpu_count()} cores. Medians. A ratio above 1 is an improvement of this checkout "
        "over the other one.\n"
    )
    print("\n".join(rows(figures)))


if __name__ == "__main__":
    main()
