"""The networks on a GPU: parity of both precisions, and times at the paper's full size.

``tests/gpu/run.sh`` runs it on a machine with PyTorch and a GPU, without TensorRT and without the
rest of the node. It writes Markdown; ``docs/results/gpu.md`` is its last committed output. With
``--device cpu`` and reduced sizes everything but CUDA runs anywhere.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tests.gpu.graph import TorchGraph
from training.release.precision.parity import Deviation, compare, flat_limit
from training.severity.network import INPUT_SHAPE, ResidualUnit, SeverityNet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.gpu.graph import Float32Array

MODELS = Path(__file__).resolve().parents[2] / "triton_models"
FILES = {"FP32": "model.onnx", "FP16": "model.fp16.onnx"}
PRECISIONS = {
    "FP32": torch.float32,
    "TF32": torch.float32,
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
}
_BATCHES = {"rating": (6, 48), "severity": (1,)}
_TIMES = "| {} | batch | milliseconds | fastest – slowest | images or volumes per second |"


@dataclass(frozen=True)
class Options:
    """What to measure; the defaults are those of a GPU."""

    device: str = "cuda"
    limit_s: float = 460.0
    runs: int = 30
    layers: int = 152
    width: int = 64
    size: int = INPUT_SHAPE[2]
    batches: tuple[int, ...] = (1, 4)
    volumes: int | None = None


class Clock:
    """Time that is left, and times of calls."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._end = time.monotonic() + options.limit_s

    def over(self) -> bool:
        """Whether nothing else should be begun."""
        return time.monotonic() > self._end

    def milliseconds(self, call: Callable[[], object]) -> list[float]:
        """Time a call after two that find the fastest kernels."""
        synchronise = torch.cuda.synchronize if self._options.device != "cpu" else lambda: None
        times = []
        for number in range(self._options.runs + 2):
            synchronise()
            started = time.perf_counter()
            call()
            synchronise()
            if number > 1:
                times.append((time.perf_counter() - started) * 1000)
        return times


def report(options: Options) -> Iterator[str]:
    """Yield the lines of the report, parity first."""
    clock = Clock(options)
    torch.backends.cudnn.benchmark = True
    _allow_tf32(allowed=False)
    yield "# Networks on a GPU\n"
    yield _machine(options) + "\n"
    yield from _parity(options)
    yield from _shipped_times(options, clock)
    yield from _full_size(options, clock)
    yield from _runtime(options, clock)


def _machine(options: Options) -> str:
    where = f"{platform.processor() or platform.machine()}, no GPU: this proves the script alone"
    if options.device != "cpu":
        found = torch.cuda.get_device_properties(options.device)
        where = (
            f"{found.name}, {found.total_memory / 2**30:.0f} GiB, compute capability {found.major}."
            f"{found.minor}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    today = datetime.now(UTC).date().isoformat()
    return f"{today}: {where}. PyTorch {torch.__version__}, Python {platform.python_version()}."


# --- Parity ---------------------------------------------------------------------------------------
def versions() -> list[Path]:
    """Return the version folders of both models."""
    return sorted(path.parent for path in MODELS.glob("*/[1-9]*/model.fp16.onnx"))


def golden(folder: Path, rows: int | None) -> tuple[str, Float32Array, dict[str, Float32Array]]:
    """Return name and values of the golden input, and what onnxruntime computed on a CPU."""
    with np.load(folder / "golden.npz") as arrays:
        (name,) = {"crops", "volume"} & set(arrays)
        stored = arrays[name][:rows].astype(np.float32) / np.float32(255)
        return name, stored, {key: arrays[key][:rows] for key in arrays if key != name}


def parity(folder: Path, precision: str, options: Options) -> tuple[int, Deviation]:
    """Return the number of golden inputs and the largest deviation from the golden outputs."""
    name, values, expected = golden(folder, options.volumes if "severity" in str(folder) else None)
    graph = TorchGraph(folder / FILES[precision], options.device)
    rows = [graph.run({name: row[None]}) for row in values]
    found = {key: np.concatenate([row[key] for row in rows]) for key in expected}
    return len(values), compare(expected, found, flat=flat_limit([expected]))


def _parity(options: Options) -> Iterator[str]:
    yield "## Parity with the golden outputs (onnxruntime, CPU, FP32)\n"
    yield (
        "The exported files, computed by PyTorch with the precision that they state for each "
        "tensor. Inputs are golden scans and extreme ones.\n"
    )
    yield "| network, file | inputs | Δ probability | ratings changed | saliency correlates | |"
    yield "|---|---|---|---|---|---|"
    for folder in versions():
        for precision, file in FILES.items():
            name = f"{folder.parent.name} {folder.name}, `{file}`"
            if folder.parent.name == "severity" and options.volumes == 0:
                yield f"| {name} | left out | | | | |"
                continue
            count, found = parity(folder, precision, options)
            verdict = "within tolerance" if found.within() else "**NOT within tolerance**"
            yield (
                f"| {name} | {count} | {found.probability:.1e} | {found.ratings_changed} "
                f"| {found.correlation:.5f} | {verdict} |"
            )
    yield "\nTolerance: 0.02, no rating changed, 0.99.\n"


# --- Times ----------------------------------------------------------------------------------------
def _row(label: str, batch: int, times: list[float]) -> str:
    median = statistics.median(times)
    spread = f"{min(times):.2f} – {max(times):.2f}"
    return f"| {label} | {batch} | {median:.2f} | {spread} | {batch / median * 1000:.1f} |"


def _shipped_times(options: Options, clock: Clock) -> Iterator[str]:
    yield "## The shipped networks\n"
    yield f"Node by node, not compiled. Medians of {options.runs} calls, input on the device.\n"
    yield _TIMES.format("network, file") + "\n|---|---|---|---|---|"
    for folder in versions():
        name, values, _ = golden(folder, 1)
        values = values[..., : options.size, : options.size]
        for precision, file in FILES.items():
            graph = TorchGraph(folder / file, options.device)
            for batch in _BATCHES[folder.parent.name]:
                given = torch.from_numpy(np.repeat(values, batch, axis=0)).to(options.device)
                times = clock.milliseconds(partial(graph.compute, {name: given}))
                yield _row(f"{folder.parent.name} {folder.name}, {precision}", batch, times)
    yield ""


def full_size(options: Options) -> SeverityNet:
    """Build a severity network with random weights; its cost does not depend on them."""
    torch.manual_seed(0)
    net = SeverityNet(options.layers, options.width).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("body.4.weight"):  # otherwise every unit is the identity
                parameter.fill_(0.1)
        net.score.weight.abs_()  # otherwise there may be no activation
    for module in net.modules():  # as the export does
        if isinstance(module, ResidualUnit):
            _fold(module.body)
            if isinstance(module.skip, nn.Sequential):
                _fold(module.skip)
    _fold(net.stem)
    return net


def _fold(layers: nn.Sequential) -> None:
    """Fold each batch normalisation into the convolution before it."""
    for number in range(len(layers) - 1):
        convolution, normalisation = layers[number], layers[number + 1]
        if isinstance(convolution, nn.Conv3d) and isinstance(normalisation, nn.BatchNorm3d):
            layers[number] = fuse_conv_bn_eval(convolution, normalisation)
            layers[number + 1] = nn.Identity()


@torch.inference_mode()
def _full_size(options: Options, clock: Clock) -> Iterator[str]:
    net = full_size(options)
    weights = sum(parameter.numel() for parameter in net.parameters())
    yield f"## Severity at full size: {options.layers} layers, {options.width} filters\n"
    yield (
        f"{weights / 1e6:.1f} million random weights, 16 × {options.size} × {options.size} voxels; "
        f"medians of {options.runs} calls. All layers have the precision of the row; TF32 is FP32 "
        "with products rounded by tensor cores. Graph: all kernels started at once (CUDA graph). "
        "Deviations are from the first row of the same batch.\n"
    )
    yield (
        f"{_TIMES.format('precision')} memory | Δ probability | saliency correlates |"
        "\n|---|---|---|---|---|---|---|---|"
    )
    for batch in options.batches:
        shape = (batch, 1, INPUT_SHAPE[1], options.size, options.size)
        volume = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        reference: dict[str, Float32Array] | None = None
        for precision, dtype in PRECISIONS.items():
            _allow_tf32(allowed=precision == "TF32")
            typed = copy.deepcopy(net).to(options.device, dtype)
            given = volume.to(options.device, dtype)
            for captured in (False, True) if options.device != "cpu" else (False,):
                label = precision + (", graph" if captured else "")
                if clock.over():
                    yield f"| {label} | {batch} | no time left | | | | | |"
                    continue
                try:
                    call, outputs = _callable(typed, given, captured=captured)
                    times = clock.milliseconds(call)
                except RuntimeError as error:
                    yield f"| {label} | {batch} | failed: {str(error).splitlines()[0]} | | | | | |"
                    continue
                found = _named(outputs())
                reference = reference or found
                differs = compare(reference, found)
                memory = "" if options.device == "cpu" else f"{_peak_mb():.0f} MB"
                yield (
                    f"{_row(label, batch, times)} {memory} | {differs.probability:.1e} "
                    f"| {differs.correlation:.5f} |"
                )
    _allow_tf32(allowed=False)
    yield ""


def _callable(
    net: SeverityNet, given: Tensor, *, captured: bool
) -> tuple[Callable[[], object], Callable[[], tuple[Tensor, ...]]]:
    """Return a call to time, and a function that returns its outputs."""
    if given.device.type != "cpu":
        torch.cuda.reset_peak_memory_stats()
    if not captured:
        return lambda: net(given), lambda: net(given)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # kernels are chosen before the capture, which allows no choice
        for _ in range(3):
            net(given)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = net(given)
    return graph.replay, lambda: outputs


def _named(outputs: tuple[Tensor, ...]) -> dict[str, Float32Array]:
    names = ("probability", "saliency")
    return {name: output.float().cpu().numpy() for name, output in zip(names, outputs, strict=True)}


def _peak_mb() -> float:
    return torch.cuda.max_memory_allocated() / 2**20


def _allow_tf32(*, allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


# --- ONNX Runtime ---------------------------------------------------------------------------------
def _runtime(options: Options, clock: Clock) -> Iterator[str]:
    """Time the full-size network there, if the machine has it for its device."""
    yield "## Severity at full size in ONNX Runtime\n"
    provider = "CPUExecutionProvider" if options.device == "cpu" else "CUDAExecutionProvider"
    try:
        import onnxruntime
    except ImportError:
        yield "Not installed here.\n"
        return
    if provider not in onnxruntime.get_available_providers():
        yield f"ONNX Runtime {onnxruntime.__version__} is installed without {provider}.\n"
        return
    if clock.over():
        yield "No time left.\n"
        return
    yield f"ONNX Runtime {onnxruntime.__version__}, {provider}, FP32, input from the host.\n"
    yield _TIMES.format("file") + "\n|---|---|---|---|---|"
    shape = (1, INPUT_SHAPE[1], options.size, options.size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            full_size(options),
            (torch.zeros(1, *shape),),
            str(path),
            input_names=["volume"],
            output_names=["probability", "saliency"],
            dynamic_axes={name: {0: "n"} for name in ("volume", "probability", "saliency")},
            opset_version=17,
            dynamo=False,
        )
        session = onnxruntime.InferenceSession(path, providers=[provider])
    for batch in options.batches:
        volume = np.random.default_rng(1).random((batch, *shape), dtype=np.float32)
        times = clock.milliseconds(partial(session.run, None, {"volume": volume}))
        yield _row("`model.onnx` of that size", batch, times)
    yield ""


def main() -> int:
    """Run the command; 1 if parity is lost, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="also write the report there")
    for name, default in vars(Options()).items():
        kind: Any = type(default) if default is not None else int
        many: dict[str, Any] = {"nargs": "+", "type": int} if kind is tuple else {"type": kind}
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, **many)
    given = vars(parser.parse_args())
    output = given.pop("output")
    options = Options(**given)
    if options.device != "cpu" and not torch.cuda.is_available():
        print("PyTorch sees no GPU here. --device cpu proves the script.", file=sys.stderr)
        return 2
    lines = []
    for line in report(options):
        print(line, flush=True)
        lines.append(line)
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text("\n".join(lines) + "\n")
    return int(any("**NOT" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
