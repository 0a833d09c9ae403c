"""Measurement: the shipped networks in FP16 against FP32, and what TensorRT makes of them.

``python -m tests.bench.precision --cohort FOLDER [--scans 200]`` compares predictions for the
golden inputs, the extreme ones among them, and the scans of a cohort: of onnxruntime with
``model.fp16.onnx``, and of an emulation that rounds after every FP16 layer. It measures the range
of every layer and what rounding of that layer alone changes, and compiles the networks, and that of
the severity paper at full size, with TensorRT for RTX. It prints a Markdown report;
``docs/results/precision.md`` is its last committed output. It takes about ten minutes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tests.support.builders.networks import full_size_severity
from tests.support.shipped_models import newest_folder
from training.cohorts.examples import crops_as_input, volume_as_input
from training.cohorts.folder import describe_cohort, load_cohort
from training.release.engines import GPUS, compile_network, served_batches
from training.release.evaluate import session
from training.release.golden import dequantise
from training.release.precision.graph import (
    WITH_WEIGHTS,
    convert,
    emulate,
    float_layers,
    multiply_adds,
    without_identities,
)
from training.release.precision.parity import Deviation, compare
from training.release.precision.ranges import Range, measure
from training.release.precision.write import SCANS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from training.cohorts.examples import Example

EXTREMES = ("all 0", "all 1", "saturated", "one bright voxel")
"""The last golden inputs, in their order."""
INPUTS = {"rating": "crops", "severity": "volume"}
SCANS_ALONE = {"rating": SCANS, "severity": 0}
"""Scans to run with every layer alone in FP16, besides the golden inputs."""
FORMS = ("onnxruntime", "emulated")

Outputs = dict[str, "NDArray[np.float32]"]


@dataclass
class Model:
    """A shipped model with its networks."""

    name: str

    def __post_init__(self) -> None:
        self.folder = newest_folder(self.name)
        self.description: dict[str, Any] = json.loads((self.folder / "model.json").read_text())
        self.network = without_identities(onnx.load(self.folder / "model.onnx"))
        self.fp16 = onnx.load(self.folder / "model.fp16.onnx")
        with np.load(self.folder / "golden.npz") as golden:
            self.golden = dequantise(golden[INPUTS[self.name]])

    def samples(self, examples: Sequence[Example]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every input with the group that it belongs to."""
        tensor = INPUTS[self.name]
        groups = ["golden"] * (len(self.golden) - len(EXTREMES)) + list(EXTREMES)
        for group, row in zip(groups, self.golden, strict=True):
            yield group, {tensor: row[None]}
        enhancement = self.description["preprocessing"]["enhancement"]
        for example in examples:
            if self.name == "rating":
                yield "scans", {tensor: crops_as_input(example.crops, enhancement)}
            else:
                yield "scans", {tensor: volume_as_input(example.volume[None])}


def _run(runtime: Any, given: dict[str, Any]) -> Outputs:
    names = [output.name for output in runtime.get_outputs()]
    return dict(zip(names, runtime.run(names, given), strict=True))


# --- Parity ---------------------------------------------------------------------------------------
def deviations(
    model: Model, examples: Sequence[Example]
) -> Iterator[tuple[str, Outputs, dict[str, Deviation]]]:
    """Yield group, FP32 outputs and the deviation of each form, for every input."""
    exact = session(model.network.SerializeToString())
    forms = {
        "onnxruntime": session(model.fp16.SerializeToString()),
        "emulated": session(emulate(model.fp16).SerializeToString()),
    }
    for group, given in model.samples(examples):
        expected = _run(exact, given)
        yield (
            group,
            expected,
            {form: compare(expected, _run(runtime, given)) for form, runtime in forms.items()},
        )


def parity(model: Model, examples: Sequence[Example]) -> Iterator[str]:
    """Yield a row of the parity table for each group of inputs, and every changed rating."""
    found: dict[str, dict[str, Deviation]] = {}
    rows: dict[str, int] = {}
    changed: list[str] = []
    for group, expected, each in deviations(model, examples):
        rows[group] = rows.get(group, 0) + len(next(iter(expected.values())))
        total = found.setdefault(group, dict.fromkeys(FORMS, Deviation()))
        for form in FORMS:
            total[form] |= each[form]
            if each[form].ratings_changed:
                ordered = np.sort(expected["probabilities"], axis=1)
                margin = float((ordered[:, -1] - ordered[:, -2]).min())
                changed.append(f"{form}, {group}: the two highest differ by {margin:.4f}")
    for group, total in found.items():
        cells = [model.name, group, str(rows[group])]
        for form in FORMS:
            worst = total[form]
            cells.append(f"{worst.probability:.4f}")
            cells.append(
                str(worst.ratings_changed) if model.name == "rating" else f"{worst.correlation:.5f}"
            )
        cells.append("yes" if all(worst.within() for worst in total.values()) else "**no**")
        yield f"| {' | '.join(cells)} |"
    for line in changed:
        yield f"| {model.name} | *{line}* | | | | | | |"


# --- Layers ---------------------------------------------------------------------------------------
def layers(model: Model, examples: Sequence[Example]) -> Iterator[str]:
    """Yield a table of every layer with weights, and of every other FP32 layer."""
    kept = {layer["layer"]: layer for layer in model.description["fp32_layers"]}
    nodes = float_layers(model.network)
    work = multiply_adds(model.network)
    measured: dict[str, Range] = measure(
        model.network, (given for _, given in model.samples(examples))
    )
    few = examples[: SCANS_ALONE[model.name]]
    alone = dict(_alone(model, few, [layer for layer in nodes if layer in work]))
    yield (
        "| layer | precision | share of the work | largest value | largest sum | Δp alone |\n"
        "|---|---|---|---|---|---|"
    )
    for layer, node in nodes.items():
        if node.op_type not in WITH_WEIGHTS and layer not in kept:
            continue
        precision = f"FP32 ({kept[layer]['reason']})" if layer in kept else "FP16"
        largest = f"{measured[layer].largest:.3g}"
        cells = [f"`{layer}`", precision, "0", largest, "", ""]
        if layer in work:
            cells[2] = f"{work[layer]:.2%}"
            cells[4:] = f"{measured[layer].partial_sum:.3g}", f"{alone[layer]:.5f}"
        yield f"| {' | '.join(cells)} |"
    others = [measured[each].largest for each in nodes if each not in kept and each not in work]
    yield f"\nThe other {len(others)} layers are FP16; their largest value is {max(others):.3g}."


def _alone(
    model: Model, examples: Sequence[Example], names: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """Largest change of a probability if one layer alone is FP16."""
    samples = [given for _, given in model.samples(examples)]
    exact = session(model.network.SerializeToString())
    expected = [_run(exact, given) for given in samples]
    for layer in names:
        runtime = session(emulate(convert(model.network, [layer])).SerializeToString())
        found = [
            compare(golden, _run(runtime, given))
            for golden, given in zip(expected, samples, strict=True)
        ]
        yield layer, max(each.probability for each in found)


# --- Engines --------------------------------------------------------------------------------------
def engines(folder: Path) -> Iterator[str]:
    """Yield a row for each network and kind of GPU; each is compiled by a new process."""
    full = folder / "model.fp16.onnx"
    in_a_process(full_size_severity, folder / "model.onnx", full)
    networks = {
        "rating": (newest_folder("rating") / "model.fp16.onnx", "rating"),
        "severity": (newest_folder("severity") / "model.fp16.onnx", "severity"),
        "severity, full size": (full, "severity"),
    }
    for title, (network, name) in networks.items():
        size = network.stat().st_size / 2**20
        for gpu, generation in GPUS.items():
            seconds, bytes_, count, memory = in_a_process(_compile, network, name, gpu)
            yield (
                f"| {title} | {size:.1f} | {gpu} ({generation}) | {seconds:.1f} | "
                f"{bytes_ / 2**20:.1f} | {count} | {memory / 2**10:.0f} |"
            )


def _compile(network: Path, name: str, gpu: str) -> tuple[float, int, int, int]:
    engine = compile_network(network, served_batches(name), gpu)
    # Not getrusage, whose maximum a new process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    (memory,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return engine.seconds, engine.size_bytes, len(engine.layers), int(memory)


def in_a_process(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own, so that its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


# --- The report -----------------------------------------------------------------------------------
def report(cohort: Path, scans: int, folder: Path) -> Iterator[str]:
    """Yield the lines of the report."""
    described = describe_cohort(cohort)
    examples = load_cohort(cohort)[:scans]
    models = [Model("rating"), Model("severity")]
    yield "# FP16 against FP32\n"
    yield (
        f"`model.fp16.onnx` against `model.onnx` of rating version {models[0].folder.name} and "
        f"severity version {models[1].folder.name}, on the golden inputs and {len(examples)} scans "
        f"of as many synthetic heads (seed {described['seed']}, {described['conditions']} "
        "conditions), which no model was trained on.\n\n```\n"
        f"python -m training cohort --out COHORT --seed {described['seed']} --count "
        f"{described['heads'] + described['rejected_heads']} --conditions "
        f"{described['conditions']}\npython -m tests.bench.precision --cohort COHORT --scans "
        f"{scans}\n```\n"
    )
    yield "## Parity\n"
    yield (
        "Required: |Δp| ≤ 0.02, the same rating for every image, correlation of the saliency "
        "≥ 0.99, no NaN. *onnxruntime* runs the FP16 file on the CPU. It has few FP16 kernels "
        "there: it computes the other layers in FP32 and leaves out the casts between them, so "
        "that these figures show rounded weights and little else, and could not show an overflow. "
        "*Emulated*: FP32 with every output of an FP16 layer rounded to FP16, as a GPU that "
        "accumulates in FP32 rounds. Neither has been compared with a GPU.\n"
    )
    yield (
        "| model | inputs | number | onnxruntime: largest Δp | ratings changed or smallest "
        "correlation | emulated: largest Δp | ratings changed or smallest correlation | met |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for model in models:
        yield from parity(model, examples)
    for model in models:
        yield f"\n## Layers of {model.name}\n"
        yield from layers(model, examples)
    yield (
        "\n*Largest value*: of inputs, weights and outputs, over all inputs above; FP16 ends at "
        "65504. *Largest sum*: of the magnitudes of all products of one output value. *Δp alone*: "
        "what a probability changes, at most, if this layer alone is FP16 (emulated), over the "
        f"golden inputs and, for rating, {SCANS} scans. "
        "[Decision 11](../decisions/0011-explicit-precision.md) says which limits decide.\n"
    )
    yield "## Compiled by TensorRT for RTX, without a GPU\n"
    yield (
        "The last network has the severity paper's full size and random weights. Memory is the "
        "peak of the compiling process, with Python and its libraries.\n\n"
        "| network | MiB | for | seconds | engine, MiB | layers | memory, MiB |\n"
        "|---|---|---|---|---|---|---|"
    )
    yield from engines(folder)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for line in report(options.cohort, options.scans, Path(name)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
