"""Compiles a network with TensorRT for RTX, on the CPU, and reads back what was compiled.

TensorRT for RTX shares TensorRT's ONNX parser and compiler and needs no GPU to compile. Its engines
run on RTX GPUs only; a node's engines are made by ``triton_models/build_engines.py``. To load an
engine takes a GPU, so what the engine inspector would show is read from the compiler's log: for
every layer of the engine the types of its tensors and the ONNX layers in it. Kernels are chosen
later, on the GPU.

The only module that imports tensorrt_rtx_bindings. It is NVIDIA's, under a proprietary licence, and
no part of the node.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

import onnx

from core.errors import ConfigurationError
from core.settings import SHIPPED_MODELS_DIR
from training.release.precision.graph import WITH_WEIGHTS, float_layers, without_identities
from triton_models.build_engines import read_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GPUS: Final = {"SM80": "Ampere", "SM86": "Ampere", "SM89": "Ada", "SM120": "Blackwell"}
"""Compute capabilities to compile for. Not Turing (SM75), for which TensorRT for RTX has no FP32
matrix product."""
_HALF: Final = "Half"
_FLOAT: Final = "Float"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of an engine: its type, "Half" or "Float", and its dimensions."""

    type: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """A layer of an engine.

    Attributes
    ----------
    name : str
    inputs, constants, outputs : tuple of Tensor
    sources : tuple of str
        ONNX layers that it computes, or parts of them.
    """

    name: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineEnd:
    """An input or output of an engine.

    Attributes
    ----------
    tensor : Tensor
        Dimensions of any size are -1.
    batches : tuple of int
        Smallest, optimal and largest batch of an input; empty for outputs.
    """

    tensor: Tensor
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Engine:
    """A compiled engine: its ends and layers, its size, and how long it took to compile."""

    gpu: str
    ends: dict[str, EngineEnd]
    layers: list[EngineLayer]
    size_bytes: int
    seconds: float


class EngineError(ConfigurationError):
    """A network that TensorRT cannot compile, or an engine that is not what was meant."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, "Export the network again; see docs/decisions/0011.")


def compile_network(network: Path, batches: tuple[int, int, int], gpu: str) -> Engine:
    """Compile an ONNX file for one kind of GPU.

    Parameters
    ----------
    network : Path
    batches : tuple of int
        Smallest batch, batch to optimise for, and largest batch.
    gpu : str
        Key of `GPUS`.

    Raises
    ------
    EngineError
        TensorRT does not take the network.
    ConfigurationError
        TensorRT for RTX is not installed, or the GPU is not in `GPUS`.
    """
    if gpu not in GPUS:
        known = ", ".join(GPUS)
        raise ConfigurationError(f"Networks cannot be compiled for {gpu} here.", f"Use {known}.")
    trt = _library()
    log = _log(trt)
    started = time.perf_counter()
    builder = trt.Builder(log)
    definition = builder.create_network(0)
    parser = trt.OnnxParser(definition, log)
    if not parser.parse_from_file(str(network)):
        raise EngineError(f"TensorRT does not parse {network.name}: {_parser_errors(parser, log)}.")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1  # without it, the next call changes nothing
    if not config.set_compute_capability(getattr(trt.ComputeCapability, gpu), 0):
        raise EngineError(f"TensorRT for RTX does not compile for {gpu}: {log.errors()}.")
    profile = builder.create_optimization_profile()
    given = definition.get_input(0)
    dims = list(given.shape)[1:]
    profile.set_shape(given.name, *([batch, *dims] for batch in batches))
    config.add_optimization_profile(profile)
    content = builder.build_serialized_network(definition, config)
    if content is None:
        raise EngineError(f"TensorRT does not compile {network.name}: {log.errors()}.")
    ends, layers = _parse(log.layers())
    return Engine(gpu, ends, layers, content.nbytes, time.perf_counter() - started)


def served_batches(model: str) -> tuple[int, int, int]:
    """Smallest, usual and largest batch of a model, as its engines are built for Triton."""
    (found,) = (each for each in read_models(SHIPPED_MODELS_DIR) if each.folder.name == model)
    return found.batches


def _library() -> Any:
    try:
        import tensorrt_rtx_bindings as trt
    except ImportError:
        raise ConfigurationError(
            "TensorRT for RTX is not installed.",
            "pip install 'epvs-node[compiler]', if you accept NVIDIA's licence.",
        ) from None
    return trt


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):
        """Keeps the errors and the description of the engine, which is a message of its own."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []
            self._layers: str | None = None

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self._errors.append(message)
            elif message.startswith("Layers:"):
                self._layers = message

        def errors(self) -> str:
            return "; ".join(self._errors) or "no reason given"

        def layers(self) -> str:
            if self._layers is None:
                raise EngineError("TensorRT did not describe the engine in its log")
            return self._layers

    return Log()


def _parser_errors(parser: Any, log: Any) -> str:
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    return (
        "; ".join(f"{each.node_operator()} {each.node_name()}: {each.desc()}" for each in found)
        or log.errors()
    )


# --- The description of an engine -----------------------------------------------------------------
_LAYER: Final = re.compile(
    r"^Name: (?P<name>.*?), LayerType: .*?, Inputs: (?P<inputs>.*), Constants: (?P<constants>.*), "
    r"Outputs: (?P<outputs>.*), TacticName: .*, Metadata: ?(?P<sources>.*)$"
)
_TENSOR: Final = re.compile(r"Dimensions: \[(?P<dims>[-\d,]*)\].*?Datatype: (?P<type>\w+)")
_SOURCE: Final = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_END: Final = re.compile(
    r"^ *Name: (?P<name>.*?), IOMode: \w+, DataType: (?P<type>\w+), Dimensions: "
    r"\[(?P<dims>[-\d,]*)\]"
)
_BATCH: Final = re.compile(r"(?:Min|Opt|Max)Shape: \[(\d+)")


def _parse(text: str) -> tuple[dict[str, EngineEnd], list[EngineLayer]]:
    """Read the lines of layers and of inputs and outputs; other lines are not needed."""
    layers, ends = [], {}
    for line in text.splitlines():
        if layer := _LAYER.match(line):
            layers.append(
                EngineLayer(
                    layer["name"],
                    _tensors(layer["inputs"]),
                    _tensors(layer["constants"]),
                    _tensors(layer["outputs"]),
                    tuple(_SOURCE.findall(layer["sources"])),
                )
            )
        elif end := _END.match(line):
            batches = tuple(int(size) for size in _BATCH.findall(line))
            ends[end["name"]] = EngineEnd(Tensor(end["type"], _dims(end["dims"])), batches)
    return ends, layers


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(Tensor(each["type"], _dims(each["dims"])) for each in _TENSOR.finditer(text))


def _dims(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


# --- What was meant -------------------------------------------------------------------------------
def require_engine(version: Path, gpu: str) -> Engine:
    """Compile ``model.fp16.onnx`` of a version folder and check the engine.

    Raises
    ------
    EngineError
        TensorRT does not take the network, or the engine is not what is meant.
    ConfigurationError
        As `compile_network`; or the version has no FP16 file.
    """
    network = version / "model.fp16.onnx"
    if not network.is_file():
        raise ConfigurationError(
            f"{version} has no {network.name}.", "Write it with `python -m training fp16`."
        )
    batches = served_batches(version.parent.name)
    engine = compile_network(network, batches, gpu)
    if differences := check_engine(engine, version, batches):
        more = f" and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise EngineError(f"The engine for {gpu}: {'; '.join(differences[:5])}{more}.")
    return engine


def check_engine(engine: Engine, version: Path, batches: tuple[int, int, int]) -> list[str]:
    """Compare an engine with the description of the version that it was compiled from.

    Parameters
    ----------
    engine : Engine
        From ``model.fp16.onnx``.
    version : Path
        Version folder with ``model.onnx`` and ``model.json``. These say what is meant: every layer
        of ``model.onnx`` that ``fp32_layers`` does not list is FP16.
    batches : tuple of int

    Returns
    -------
    list of str
        The differences.
    """
    described = json.loads((version / "model.json").read_text(encoding="utf-8"))
    network = without_identities(onnx.load(version / "model.onnx"))
    fp32 = {layer["layer"] for layer in described["fp32_layers"]}
    return [
        *_end_differences(engine, described, batches),
        *_layer_differences(engine, network, fp32),
    ]


def _end_differences(
    engine: Engine, described: dict[str, Any], batches: tuple[int, int, int]
) -> Iterator[str]:
    meant = {
        name: EngineEnd(
            Tensor(_FLOAT, (-1 if batches[0] < batches[2] else batches[2], *dims[1:])), profile
        )
        for part, profile in (("inputs", batches), ("outputs", ()))
        for name, dims in described[part].items()
    }
    for name in sorted(meant.keys() | engine.ends.keys()):
        if engine.ends.get(name) != meant.get(name):
            yield f"{name} is {engine.ends.get(name)} and not {meant.get(name)}"


def _layer_differences(engine: Engine, network: onnx.ModelProto, fp32: set[str]) -> Iterator[str]:
    kernels = {tensor.name: tuple(tensor.dims) for tensor in network.graph.initializer}
    for name, node in float_layers(network).items():
        found = [layer for layer in engine.layers if name in layer.sources]
        meant = _FLOAT if name in fp32 else _HALF
        if node.op_type in WITH_WEIGHTS:
            types = _weighted_types(found, kernels[node.input[1]])
            right = types == {meant}
        elif meant == _HALF:
            types = {tensor.type for layer in found for tensor in layer.outputs}
            right = meant in types
        else:
            continue  # the ends are FP32, and so are the layers with weights around it
        if not right:
            yield f"{name} is {' and '.join(sorted(types)) or 'missing'} and not {meant}"


def _weighted_types(found: list[EngineLayer], kernel: tuple[int, ...]) -> set[str]:
    """Types of the kernel and the inputs of the engine layer that computes a layer with weights.

    The compiler may pad or transpose the kernel, but keeps the extent in space. Other layers, which
    prepare an input, name the same source.
    """
    candidates = [
        (prod(constant.dims), layer, constant)
        for layer in found
        for constant in layer.constants
        if len(constant.dims) == len(kernel) and constant.dims[2:] == kernel[2:]
    ]
    if not candidates:
        return set()
    _, layer, constant = max(candidates, key=lambda each: each[0])
    return {constant.type, *(each.type for each in layer.inputs)}
