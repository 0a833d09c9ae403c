"""Benchmark: the severity network at the paper's full size, served by Triton.

``python -m tests.bench.severity [--runs 5] [--layers 152] [--width 64] [--study FOLDER]`` builds
the network with random weights (its predictions are useless, but its cost does not depend on them),
exports it, and runs it alternately with onnxruntime alone and through the embedded Triton, on the
same volume and the same cores. Then one study is graded end to end with it. It prints a Markdown
report; ``docs/results/severity-full-size.md`` is its last committed output.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import torch

from core.model_versions import newest_version
from core.settings import SHIPPED_MODELS_DIR
from node.embedded.triton import EmbeddedTriton
from tests.support.builders.series_files import closed_study
from tests.support.builders.synthetic_studies import generate_synthetic_study
from tests.support.paths import SAMPLE_DATA
from training.release.evaluate import session
from training.release.export import to_onnx
from training.release.golden import write_golden
from training.severity.network import INPUT_SHAPE, SeverityNet, drop_padding
from worker.grading.inference import InferenceClient
from worker.grading.pipeline import GradingOptions, grade_study
from worker.grading.reading import read_study
from worker.grading.records import SeverityInput
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPE = (1, *INPUT_SHAPE)
THREADS = 2


def build(folder: Path, layers: int, width: int) -> tuple[int, int, float]:
    """Export a network with both forms of its weights; return the numbers of weights and the error.

    The error is the largest difference in saliency between the published form (PyTorch) and the
    exported one (onnxruntime), relative to the maximum.
    """
    torch.manual_seed(0)
    published = SeverityNet(layers, width, published=True).eval()
    with torch.no_grad():
        for name, parameter in published.named_parameters():
            if name.endswith("body.4.weight"):  # otherwise every unit is the identity
                parameter.fill_(0.1)
        published.score.weight.abs_()  # otherwise there may be no activation
    lean = SeverityNet(layers, width)
    lean.load_state_dict(drop_padding(published.state_dict(), lean))
    for net, file in ((published, "published.onnx"), (lean, "model.onnx")):
        to_onnx(net, SHAPE, folder / file, "volume", ["probability", "saliency"])
    volume = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    with torch.no_grad():
        _, expected = published(torch.from_numpy(volume))
    (found,) = session(folder / "model.onnx", THREADS).run(["saliency"], {"volume": volume})
    error = np.abs(found - expected.numpy()).max() / np.abs(expected.numpy()).max()
    count = [sum(p.numel() for p in net.parameters()) for net in (published, lean)]
    return count[0], count[1], float(error)


def repository(folder: Path, network: Path) -> Path:
    """Copy the model repository and replace its severity network."""
    models = folder / "triton_models"
    shutil.copytree(SHIPPED_MODELS_DIR, models)
    version = models / "severity" / newest_version(models / "severity")
    described = version / "model.json"
    info = json.loads(described.read_text())
    network.replace(version / "model.onnx")
    with (version / "model.onnx").open("rb") as weights:
        info["weights_sha256"] = hashlib.file_digest(weights, "sha256").hexdigest()
    stored = np.random.default_rng(1).integers(0, 256, SHAPE, dtype=np.uint8)
    write_golden(version, "volume", stored)
    info["golden_sha256"] = hashlib.sha256((version / "golden.npz").read_bytes()).hexdigest()
    described.write_text(json.dumps(info))
    return models


def alternate(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Time the calls in alternation, after a warm-up of each."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(runs + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def report(layers: int, width: int, study: Path, runs: int, folder: Path) -> Iterator[str]:
    """Yield the lines of the report."""
    published, lean, error = build(folder, layers, width)
    size = (folder / "model.onnx").stat().st_size / 2**20
    models = repository(folder, folder / "model.onnx")
    (network,) = (models / "severity").glob("[0-9]*/model.onnx")
    yield f"# The severity network of {layers} layers and {width} filters, served\n"
    yield (
        f"{published / 1e6:.0f} million weights in the published form, {lean / 1e6:.0f} million "
        f"without the kernel planes that see only padding, {size:.0f} MB as ONNX. Largest "
        f"difference of the saliency between the published form in PyTorch and the exported one in "
        f"onnxruntime: {error:.1e} of its maximum. {os.cpu_count()} cores, no GPU, {THREADS} "
        f"threads; medians of {runs} alternating runs.\n"
    )
    volume = np.random.default_rng(2).random(SHAPE, dtype=np.float32)
    given = SeverityInput(volume, sitk.Image(1, 1, 1, sitk.sitkFloat32), sitk.Transform())
    template = load_template()
    closed = closed_study(study)
    with EmbeddedTriton(
        folder / "triton", folder / "triton.log", models_dir=models, threads=THREADS
    ) as server:
        client = InferenceClient.connect(server.url, models, timeout_s=300)
        client.check_golden()
        runtime = session(network, THREADS)
        whole = session(folder / "published.onnx", THREADS)
        seconds = alternate(
            {
                "onnxruntime alone": lambda: runtime.run(None, {"volume": volume}),
                "through Triton": lambda: client.assess(given),
                "onnxruntime alone, published form": lambda: whole.run(None, {"volume": volume}),
            },
            runs,
        )
        yield "| | seconds | fastest – slowest | ratio |\n|---|---|---|---|"
        alone = statistics.median(seconds["onnxruntime alone"])
        for name, values in seconds.items():
            median = statistics.median(values)
            yield f"| {name} | {median:.2f} | {_range(values)} | {median / alone:.2f} |"
        yield "\nGoal for Triton: a ratio of at most 1.10.\n"

        totals, stages = [], []
        for number in range(runs + 1):
            graded = grade_study(
                closed,
                read=read_study,
                inference=client,
                template=template,
                options=GradingOptions(),
                completed_at=datetime(2026, 1, 1, tzinfo=UTC),
            )
            if number:
                totals.append(sum(t.seconds for t in graded.timings))
                stages.append({t.stage: t.seconds for t in graded.timings})
        client.close()
    yield f"## One study end to end: {study.name}\n"
    yield "| stage | seconds |\n|---|---|"
    for stage in stages[0]:
        yield f"| {stage} | {statistics.median(s[stage] for s in stages):.2f} |"
    yield f"| **all** (goal: at most 10) | {statistics.median(totals):.2f} ({_range(totals)}) |"


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} – {max(values):.2f}"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--layers", type=int, default=152)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--study", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = options.study or SAMPLE_DATA / "study-brain-siemens"
        if not study.is_dir():
            study = generate_synthetic_study(folder / "study", seed=20)
        for line in report(options.layers, options.width, study, options.runs, folder):
            print(line, flush=True)


if __name__ == "__main__":
    main()
