"""Seconds of every pipeline stage, and how clearly right scans differ from wrong ones.

``python -m tests.bench.pipeline [--runs 5] [--study FOLDER]`` grades one study several times in
one process against the embedded Triton, and registers changed copies of it that must be refused.
It prints a Markdown report; ``docs/results/pipeline.md`` is its last committed output.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from core.settings import SHIPPED_MODELS_DIR
from node.embedded.triton import EmbeddedTriton
from tests.support.builders.series_files import closed_study
from tests.support.builders.synthetic_studies import generate_synthetic_study
from tests.support.paths import SAMPLE_DATA
from worker.grading.errors import NotGradable
from worker.grading.inference import InferenceClient
from worker.grading.pipeline import GradingOptions, grade_study
from worker.grading.reading import Reader
from worker.grading.records import Volume
from worker.grading.stages import registration
from worker.grading.stages.assembly import read_volume
from worker.grading.stages.selection import select_series
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.studies import ClosedStudy

TO_THE_RATING = (
    "read_study",
    "assemble",
    "register",
    "check_quality",
    "prepare_rating",
    "rate",
)


def changed_copies(volume: Volume) -> Iterator[tuple[str, Volume]]:
    """Copies of a good scan that must not be graded."""
    voxels = sitk.GetArrayFromImage(volume.image)
    low, high = np.quantile(voxels, [0.02, 0.995])
    yield "front and back swapped", _like(volume, voxels[:, ::-1])
    yield "head and feet swapped", _like(volume, voxels[::-1])
    yield "slices shuffled", _like(volume, np.random.default_rng(0).permutation(voxels, axis=0))
    inverted = np.where(voxels > 0.1 * high, np.clip(high - voxels, low, None), voxels)
    yield "contrast inverted (T1-like)", _like(volume, inverted)
    yield "upper half only", Volume(volume.image[:, :, len(voxels) // 2 :], volume.series)


def _like(volume: Volume, voxels: np.ndarray) -> Volume:
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels))
    image.CopyInformation(volume.image)
    return Volume(image, volume.series)


def judge(name: str, volume: Volume) -> str:
    """Register a scan; return its figures and what the gate says of it as a row."""
    figures = "– | – | – | –"
    try:
        quality = registration.register(volume, load_template()).quality
        figures = (
            f"{quality.box_correlation:.2f} | {quality.brain_correlation:.2f} "
            f"| {quality.coverage:.2f} | {quality.scale:.2f}"
        )
        registration.check_quality(quality)
    except NotGradable as rejection:
        return f"| {name} | {figures} | {rejection.reason} |"
    return f"| {name} | {figures} | **graded** |"


def report(study: ClosedStudy, runs: int, work_dir: Path) -> Iterator[str]:
    """Yield the lines of the report."""
    template = load_template()
    seconds = defaultdict(list)
    gc.freeze()  # as `worker.startup` does
    reader = Reader()
    with (
        closing(reader),
        EmbeddedTriton(work_dir / "triton", work_dir / "triton.log") as server,
    ):
        client = InferenceClient.connect(server.url, SHIPPED_MODELS_DIR, timeout_s=60)
        client.check_golden()
        for _ in range(runs + 1):
            graded = grade_study(
                study,
                datetime(2026, 1, 1, tzinfo=UTC),
                read=reader.read_study,
                inference=client,
                template=template,
                options=GradingOptions(),
            )
            for timing in graded.timings:
                seconds[timing.stage].append(timing.seconds)
        client.close()
    yield f"## Stages\n\nMedian of {runs} runs after one to warm up; {os.cpu_count()} cores.\n"
    yield "| stage | seconds | fastest – slowest |\n|---|---|---|"
    for stage, values in seconds.items():
        kept = values[1:]
        median = statistics.median(kept)
        yield f"| {stage} | {median:.2f} | {min(kept):.2f} – {max(kept):.2f} |"
    for title, stages in (
        ("files to rating: the first six", TO_THE_RATING),
        ("all", tuple(seconds)),
    ):
        totals = [sum(run) for run in zip(*(seconds[s][1:] for s in stages), strict=True)]
        median = statistics.median(totals)
        yield f"| **{title}** | {median:.2f} | {min(totals):.2f} – {max(totals):.2f} |"
    yield (
        "\n## Registration quality\n\n"
        f"Graded are scans with box ≥ {registration.MIN_BOX_CORRELATION}, "
        f"brain ≥ {registration.MIN_BRAIN_CORRELATION}, "
        f"coverage ≥ {registration.MIN_COVERAGE}, "
        f"scale {registration.SCALE_RANGE[0]}–{registration.SCALE_RANGE[1]}.\n"
    )
    yield "| scan | box | brain | coverage | scale | verdict |\n|---|---|---|---|---|---|"
    volume = read_volume(select_series(study).require_series())
    yield judge("as it is", volume)
    for name, copy in changed_copies(volume):
        yield judge(name, copy)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--study", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder)
        source = options.study or SAMPLE_DATA / "study-brain-siemens"
        if not source.is_dir():
            source = generate_synthetic_study(work_dir / "study", seed=20)
        print(f"# The pipeline on {source.name}\n")
        for line in report(closed_study(source), options.runs, work_dir):
            print(line)


if __name__ == "__main__":
    main()
