"""Which layers of a network are FP16: decided by measured ranges and by parity.

Convolutions are nearly all of the work. They and the layers between them may be FP16; what computes
the outputs from the last feature map stays FP32. Of the rest, a layer stays FP32 if FP16 could not
hold its values, or if its rounding uses up too much of the tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from training.release.evaluate import session
from training.release.precision.graph import (
    convert,
    emulate,
    float_layers,
    multiply_adds,
    without_identities,
)
from training.release.precision.parity import Deviation, compare, flat_limit
from training.release.precision.ranges import Range, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import onnx

    from worker.grading.records import Float32Array

    Inputs = Mapping[str, Float32Array]

_BETWEEN: Final = frozenset({"Add", "AveragePool", "MaxPool", "Relu"})
"""Operators that are FP16 where they follow an FP16 layer."""
LARGEST: Final = 65504 / 16
"""Largest magnitude of a value in FP16: that of FP16 itself, with room for other scans."""
LARGEST_SUM: Final = 65504.0
"""Largest sum of magnitudes; see `Range.partial_sum`. It exceeds every real sum by far."""
SHARE: Final = 0.25
"""Part of the tolerance that the FP16 network may use up, emulated on the CPU."""


@dataclass(frozen=True, slots=True)
class KeptLayer:
    """A layer that stays FP32.

    Attributes
    ----------
    layer, operator : str
    reason : {"output", "range", "parity"}
        It computes an output from the last feature map; a value or a sum exceeds its limit; its
        rounding uses up too much of the tolerance.
    figures : dict
        What was measured.
    """

    layer: str
    operator: str
    reason: str
    figures: dict[str, float]

    def describe(self) -> dict[str, Any]:
        """Return the entry for ``model.json``."""
        return {
            "layer": self.layer,
            "operator": self.operator,
            "reason": self.reason,
            **self.figures,
        }


def decide(
    network: onnx.ModelProto, samples: Callable[[], Iterable[Inputs]]
) -> tuple[onnx.ModelProto, list[KeptLayer]]:
    """Convert an exported network to FP16 where that is safe.

    Parameters
    ----------
    network : ModelProto
        FP32, as exported.
    samples : callable
        Returns the inputs to measure with, one batch after the other; called several times.

    Returns
    -------
    network : ModelProto
        Explicitly typed; its inputs and outputs are FP32.
    kept : list of KeptLayer
        The layers that stayed FP32, in the order of the graph.
    """
    network = without_identities(network)
    layers = float_layers(network)
    ranges = measure(network, samples())
    convolutions = trunk(layers)
    work = multiply_adds(network)
    kept = {
        layer: KeptLayer(layer, node.op_type, *reason)
        for layer, node in layers.items()
        if (reason := _reason(layer in convolutions, ranges[layer], work.get(layer, 0.0)))
    }
    runtime = session(network.SerializeToString())
    expected = [_run(runtime, given) for given in samples()]
    flat = flat_limit(expected)
    number = 1
    while True:
        fp16 = [layer for layer in layers if layer not in kept]
        converted = convert(network, fp16)
        worst, deviation = _worst(converted, samples(), expected, flat)
        if deviation.within(SHARE) or not fp16:
            return converted, [kept[layer] for layer in layers if layer in kept]
        given = next(given for index, given in enumerate(samples()) if index == worst)
        alone = {
            layer: compare(expected[worst], _emulated(convert(network, [layer]), given), flat=flat)
            for layer in fp16
        }
        fp16.sort(key=lambda layer: (alone[layer].probability, -alone[layer].correlation))
        for layer in fp16[-number:]:
            figures = {"probability_change": _significant(alone[layer].probability)}
            if "saliency" in expected[worst]:
                figures["saliency_correlation"] = round(alone[layer].correlation, 5)
            kept[layer] = KeptLayer(layer, layers[layer].op_type, "parity", figures)
        number *= 2


def trunk(layers: Mapping[str, onnx.NodeProto]) -> set[str]:
    """Names of the convolutions and of what follows them, up to the last feature map."""
    found: set[str] = set()
    tensors: set[str] = set()
    for name, node in layers.items():
        if node.op_type == "Conv" or (node.op_type in _BETWEEN and tensors & set(node.input)):
            found.add(name)
            tensors.update(node.output)
    return found


def _reason(in_trunk: bool, measured: Range, work: float) -> tuple[str, dict[str, float]] | None:
    """Why a layer stays FP32, with figures; None if it may be FP16."""
    if not in_trunk:
        return "output", {
            "largest": _significant(measured.largest),
            "multiply_adds_share": _significant(work),
        }
    if not (measured.largest <= LARGEST and measured.partial_sum <= LARGEST_SUM):
        return "range", {
            "largest": _significant(measured.largest),
            "partial_sum": _significant(measured.partial_sum),
        }
    return None


def _significant(value: float) -> float:
    return float(f"{value:.3g}")


def _worst(
    converted: onnx.ModelProto,
    samples: Iterable[Inputs],
    expected: list[dict[str, Float32Array]],
    flat: float,
) -> tuple[int, Deviation]:
    """Return the index of the batch that deviates most and the deviation over all."""
    runtime = session(emulate(converted).SerializeToString())
    found = [
        compare(golden, _run(runtime, given), flat=flat)
        for given, golden in zip(samples, expected, strict=True)
    ]
    total = Deviation()
    for each in found:
        total |= each
    order = [(each.ratings_changed, each.probability, -each.correlation) for each in found]
    return order.index(max(order)), total


def _emulated(converted: onnx.ModelProto, given: Inputs) -> dict[str, Float32Array]:
    return _run(session(emulate(converted).SerializeToString()), given)


def _run(runtime: Any, given: Inputs) -> dict[str, Float32Array]:
    names = [output.name for output in runtime.get_outputs()]
    return dict(zip(names, runtime.run(names, dict(given)), strict=True))
