"""What reading a study in a process of its own costs, and what it saves.

``python -m tests.bench.reading [--runs 25] [--study FOLDER]`` reads one study in turn in this
process and in a process of its own, then lets the costly instances of `tests.attacks` be read. It
prints a Markdown report; ``docs/results/reading.md`` is its last committed output.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, MRImageStorage

from core.studies import ClosedStudy, SpooledInstance
from tests.support.builders import costly_instances as costly
from tests.support.builders.series_files import closed_study, with_digests
from tests.support.builders.synthetic_studies import generate_synthetic_study
from tests.support.paths import SAMPLE_DATA
from worker.grading.errors import NotGradable
from worker.grading.reading import Reader, read_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Peaks(logging.Handler):
    """Keeps the peak memory of the last reading."""

    mb = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"peak_mb=(\d+)", record.getMessage())
        if found:
            self.mb = float(found[1])


def seconds(read: Callable[[ClosedStudy], object], study: ClosedStudy) -> float:
    started = time.perf_counter()
    read(study)
    return time.perf_counter() - started


def compare(reader: Reader, study: ClosedStudy, runs: int) -> Iterator[str]:
    """Yield the lines on an ordinary study."""
    here, there = [], []
    for _ in range(runs + 1):
        here.append(seconds(read_study, study))
        there.append(seconds(reader.read_study, study))
    yield f"Medians of {runs} runs in turn after one to warm up; {os.cpu_count()} cores.\n"
    yield "| | seconds | fastest – slowest |\n|---|---|---|"
    for name, values in (
        ("in the worker itself", here[1:]),
        ("in a process of its own", there[1:]),
    ):
        median = statistics.median(values)
        yield f"| {name} | {median:.3f} | {min(values):.3f} – {max(values):.3f} |"
    difference = statistics.median(b - a for a, b in zip(here[1:], there[1:], strict=True))
    yield f"| **median of the differences** (aim: at most 0.15) | **{difference:.3f}** | |"


def attacks(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write studies of costly instances; yield what each is."""
    for name, frame, syntax in (
        ("JPEG Lossless, 16,000² behind 64²", costly.jpeg_lossless(), JPEGLosslessSV1),
        ("JPEG 2000, 16,000² behind 64²", costly.jpeg_2000(), JPEG2000Lossless),
        ("JPEG-LS, 16,000² behind 64²", costly.jpeg_ls(), JPEGLSLossless),
    ):
        costly.write_series(folder / name, frame, syntax)
        yield name, folder / name
    name = "deflated, 2 MB to 2 GiB"
    costly.write_deflated(folder / name / "1.dcm", 2**31)
    yield name, folder / name
    name = "Enhanced MR, 250,000 empty per-frame items, deflated"
    costly.write_many_items(folder / name / "1.dcm", 250_000)
    yield name, folder / name
    name = "forty Enhanced MR of 90,000 items"
    costly.write_many_items(folder / name / "00.dcm", 90_000)
    for n in range(1, 40):
        (folder / name / f"{n:02}.dcm").write_bytes((folder / name / "00.dcm").read_bytes())
    yield name, folder / name


def received(folder: Path) -> ClosedStudy:
    """A study of all files of a folder."""
    return ClosedStudy(
        "2.25.1",
        "bench",
        1,
        tuple(
            SpooledInstance(path, f"2.25.2.{n}", MRImageStorage, "2.25.2")
            for n, path in enumerate(sorted(folder.iterdir()), start=1)
        ),
    )


def survive(reader: Reader, folder: Path, peaks: _Peaks) -> Iterator[str]:
    """Yield the lines on the costly instances."""
    yield "| study | smallest file, bytes | ends as | seconds | peak, MB |\n|---|---|---|---|---|"
    for name, place in attacks(folder):
        study = received(place)
        size = min(instance.path.stat().st_size for instance in study.instances)
        started = time.perf_counter()
        try:
            reading = reader.read_study(study)
            reason, _ = reading.refusal or (reading.selection.reason, "")
        except NotGradable as refusal:
            reason = refusal.reason
        took = time.perf_counter() - started
        yield f"| {name} | {size} | `{reason}` | {took:.2f} | {peaks.mb:.0f} |"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--study", type=Path, default=None)
    options = parser.parse_args()
    peaks = _Peaks()
    log = logging.getLogger("worker.grading.reading.reader")
    log.setLevel(logging.INFO)
    log.addHandler(peaks)
    reader = Reader()
    reader.start()
    with closing(reader), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = options.study or SAMPLE_DATA / "study-brain-siemens"
        if not source.is_dir():
            source = generate_synthetic_study(folder / "study", seed=20)
        print("# Reading a study in a process of its own\n")
        print(f"## An ordinary study: {source.name}\n")
        for line in compare(reader, with_digests(closed_study(source)), options.runs):
            print(line)
        print("\n## Costly instances\n")
        for line in survive(reader, folder / "attacks", peaks):
            print(line)


if __name__ == "__main__":
    main()
