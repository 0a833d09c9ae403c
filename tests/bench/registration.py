"""Benchmark: preprocessing of the severity model and the published rigid registration.

``python -m tests.bench.registration [--subjects 6] --ants PYTHON`` registers the same synthetic
scans with the node's registration and with ANTsPy's rigid one (severity paper, Methods), which
needs its own environment::

    python3 -m venv .ants-env && .ants-env/bin/pip install antspyx
    python -m tests.bench.registration --ants .ants-env/bin/python

It prints a Markdown report; ``docs/results/registration.md`` is its last committed output. Errors
are distances between the registered and the true centres of the basal ganglia.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from training.cohorts.synthetic import CROP_CENTRES, as_volume
from training.synthetic.conditions import CONDITIONS
from training.synthetic.subjects import make_subject
from worker.grading.stages.registration import register
from worker.grading.stages.severity import prepare_severity
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.synthetic.subjects import Subject
    from worker.grading.records import Volume

SEED = 8008


def measure_node(volume: Volume) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Return seconds of registration and of the whole input; rigid and affine points."""
    template = load_template()
    started = time.perf_counter()
    registration = register(volume, template)
    registered = time.perf_counter()
    prepare_severity(volume, registration, template)
    done = time.perf_counter()
    rigid, affine = (
        np.array([transform.TransformPoint(centre.tolist()) for centre in CROP_CENTRES])
        for transform in (registration.rigid, registration.affine)
    )
    return registered - started, done - started, rigid, affine


def measure_ants(
    python: Path, subjects: list[Subject], folder: Path
) -> list[tuple[float, np.ndarray]]:
    """Return seconds and points of ANTsPy's rigid registration of each subject."""
    sitk.WriteImage(load_template().t2, str(folder / "fixed.nii.gz"))
    points = "\n".join(",".join(str(v) for v in centre) for centre in CROP_CENTRES)
    (folder / "points.csv").write_text(f"x,y,z\n{points}\n")
    files = []
    for number, subject in enumerate(subjects):
        files.append(str(folder / f"{number}.nii.gz"))
        sitk.WriteImage(as_volume(subject).image, files[-1])
    done = subprocess.run(
        [
            python,
            Path(__file__).with_name("ants_rigid.py"),
            folder / "fixed.nii.gz",
            folder / "points.csv",
            *files,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [(result["seconds"], np.array(result["points"])) for result in results]


def error_mm(subject: Subject, found: np.ndarray) -> float:
    """Mean distance from the true centres."""
    return float(np.linalg.norm(found - subject.pose.to_patient(CROP_CENTRES), axis=1).mean())


def report(count: int, python: Path, conditions: str) -> Iterator[str]:
    """Yield the lines of the report."""
    subjects = [make_subject(SEED, n, conditions=CONDITIONS[conditions]) for n in range(count)]
    measure_node(as_volume(subjects[0]))  # warm-up
    rows = [measure_node(as_volume(subject)) for subject in subjects]
    with tempfile.TemporaryDirectory() as folder:
        ants = measure_ants(python, subjects, Path(folder))
    columns = {
        "node: registration": [row[0] for row in rows],
        "node: registration and the whole severity input": [row[1] for row in rows],
        "ANTsPy: rigid registration alone": [seconds for seconds, _ in ants],
    }
    yield f"{count} synthetic scans, {conditions} conditions, {os.cpu_count()} cores.\n"
    yield "| | seconds, median | fastest – slowest |\n|---|---|---|"
    for name, seconds in columns.items():
        yield (
            f"| {name} | {statistics.median(seconds):.2f} "
            f"| {min(seconds):.2f} – {max(seconds):.2f} |"
        )
    whole = statistics.median(columns["node: registration and the whole severity input"])
    alone = statistics.median(columns["ANTsPy: rigid registration alone"])
    ratio = alone / whole
    yield f"\nANTsPy's rigid registration alone takes {ratio:.1f} × the node's total time.\n"
    errors = {
        "node, rigid": [error_mm(s, row[2]) for s, row in zip(subjects, rows, strict=True)],
        "node, affine": [error_mm(s, row[3]) for s, row in zip(subjects, rows, strict=True)],
        "ANTsPy, rigid": [error_mm(s, at) for s, (_, at) in zip(subjects, ants, strict=True)],
    }
    apart = [
        float(np.linalg.norm(row[2] - at, axis=1).mean())
        for row, (_, at) in zip(rows, ants, strict=True)
    ]
    yield "| error at the basal ganglia, mm | median | largest |\n|---|---|---|"
    for name, values in errors.items():
        yield f"| {name} | {statistics.median(values):.2f} | {max(values):.2f} |"
    median = statistics.median(apart)
    yield f"| distance between node and ANTsPy, both rigid | {median:.2f} | {max(apart):.2f} |"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=6)
    parser.add_argument("--conditions", choices=tuple(CONDITIONS), default="standard")
    parser.add_argument("--ants", type=Path, required=True, help="interpreter that has antspyx")
    options = parser.parse_args()
    print("# Registration compared with the published preprocessing\n")
    for line in report(options.subjects, options.ants, options.conditions):
        print(line)


if __name__ == "__main__":
    main()
