"""Export a training run into the model repository: graph, golden answer, model card.

The ONNX file is what every backend serves (onnxruntime, TensorRT built from it), so the golden
answer and the figures in the card come from it and not from PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

from training import checkpoints
from training.cards import rating_card, severity_card
from training.datasets import (
    Example,
    crops_as_input,
    describe_cohort,
    load_cohort,
    rating_of,
    volume_as_input,
)
from training.evaluate import rating_metrics, session, severity_metrics
from training.networks import rating, severity

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OPSET: Final = 17
"""Understood by onnxruntime ≥ 1.13 and TensorRT ≥ 8.6."""
_TOLERANCE: Final[dict[str, dict[str, Any]]] = {
    "rating": {"argmax": "equal", "probability": 0.02},
    "severity": {"probability": 0.02, "saliency_correlation": 0.99},
}
_INTENDED_USE: Final = (
    "Demonstration and research on the grading of enlarged perivascular spaces in the basal "
    "ganglia. Trained on synthetic data; not for clinical use."
)


def export_rating(run: Path, cohort: Path, models: Path) -> None:
    """Export the rating model.

    Parameters
    ----------
    run : Path
        Of `training.train_rating.train_rating`.
    cohort : Path
        Held-out subjects: they give the golden input and the card's figures.
    models : Path
        ``triton_models``.
    """
    state = _checkpoint(run)
    net = rating.RatingNet()
    net.load_state_dict(state["best_weights"])
    version = models / "rating" / "1"
    to_onnx(net, (1, *rating.INPUT_SHAPE), version / "model.onnx", "crops", ["probabilities"])
    examples = load_cohort(cohort, volumes=False)
    _write_golden(version, "crops", _golden_crops(version / "model.onnx", examples))
    info = _describe(
        "rating",
        "EPVS rating CNN",
        version,
        state,
        architecture={
            "family": "2-D CNN (rating paper, section 2.4.2)",
            "filters": list(rating.FILTERS),
            "parameters": _count(net),
        },
        training={"cohort": state["cohort"], "epochs": state["epoch"]},
        held_out=describe_cohort(cohort),
        metrics=rating_metrics(version / "model.onnx", examples),
        inputs={"crops": [-1, *rating.INPUT_SHAPE]},
        outputs={"probabilities": [-1, rating.RATINGS]},
    )
    _write_card(models / "rating", info, rating_card(info))


def export_severity(run: Path, cohort: Path, models: Path) -> None:
    """Export the severity model; parameters as for `export_rating`."""
    state = _checkpoint(run)
    plan = state["plan"]
    net = severity.SeverityNet(plan["layers"], plan["width"])
    net.load_state_dict(state["best_weights"])
    version = models / "severity" / "1"
    shape = (1, *severity.INPUT_SHAPE)
    to_onnx(net, shape, version / "model.onnx", "volume", ["probability", "saliency"])
    examples = load_cohort(cohort)
    _write_golden(version, "volume", _golden_volume(version / "model.onnx", examples))
    info = _describe(
        "severity",
        f"EPVS severity 3D-ResNet-{plan['layers']}",
        version,
        state,
        architecture={
            "family": "3-D ResNet (severity paper, Methods) with closed-form Grad-CAM",
            "layers": plan["layers"],
            "units": list(severity.UNITS[plan["layers"]]),
            "stem_filters": plan["width"],
            "width_factor": plan["width"] / severity.FULL_WIDTH,
            "parameters": _count(net) - _count(net.log_count),
        },
        training={
            "cohort": state["cohort"],
            "epochs": sum(phase["epochs"] for phase in state["phases"]),
            "phases": state["phases"],
        },
        held_out=describe_cohort(cohort),
        metrics=severity_metrics(version / "model.onnx", examples),
        inputs={"volume": [-1, *severity.INPUT_SHAPE]},
        outputs={"probability": [-1, 1], "saliency": [-1, 1, 16, 16]},
    )
    _write_card(models / "severity", info, severity_card(info))


def to_onnx(
    net: nn.Module, shape: tuple[int, ...], target: Path, input_name: str, outputs: list[str]
) -> None:
    """Write a network as one ONNX file with a dynamic batch.

    Parameters
    ----------
    net : Module
    shape : tuple of int
        Of an example input, batch first.
    target : Path
    input_name : str
    outputs : list of str
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    torch.onnx.export(
        net.eval(),
        (torch.zeros(shape),),
        str(partial),
        input_names=[input_name],
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in (input_name, *outputs)},
        opset_version=OPSET,
        dynamo=False,
    )
    partial.rename(target)


def _golden_crops(model: Path, examples: list[Example]) -> NDArray[np.uint8]:
    """Choose two crops of every rating, those whose answer is least open to rounding."""
    crops = quantise(crops_as_input(np.concatenate([e.crops for e in examples])))
    ratings = rating_of(np.concatenate([e.counts for e in examples]))
    (answers,) = session(model).run(None, {"crops": dequantise(crops)})
    ordered = np.sort(answers, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    chosen = [
        np.flatnonzero(ratings == rating)[np.argsort(-margin[ratings == rating])[:2]]
        for rating in range(5)
    ]
    return crops[np.concatenate(chosen)]


def _golden_volume(model: Path, examples: list[Example]) -> NDArray[np.uint8]:
    """Choose a volume whose answer would move with any fault: severe, but not saturated."""
    runtime = session(model)
    best, distance = examples[0].volume, np.inf
    for example in examples[:40]:
        volume = volume_as_input(example.volume[None])
        probability = runtime.run(["probability"], {"volume": volume})[0].item()
        if abs(probability - 0.8) < distance:
            best, distance = example.volume, abs(probability - 0.8)
    return best[None, None]


def quantise(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values 0–1 in steps of 1/255: golden inputs are stored so, and answered after decoding."""
    return np.rint(values * 255).astype(np.uint8)


def dequantise(values: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Decode what `quantise` stored."""
    return values.astype(np.float32) / np.float32(255)


def _write_golden(version: Path, name: str, stored: NDArray[np.uint8]) -> None:
    """Store an input and onnxruntime's answer to it."""
    runtime = session(version / "model.onnx")
    names = [output.name for output in runtime.get_outputs()]
    answers = runtime.run(names, {name: dequantise(stored)})
    arrays: dict[str, Any] = {name: stored, **dict(zip(names, answers, strict=True))}
    np.savez_compressed(version / "golden.npz", **arrays)


def _describe(
    name: str, display_name: str, version: Path, state: dict[str, Any], **facts: Any
) -> dict[str, Any]:
    weights = (version / "model.onnx").read_bytes()
    return {
        "name": name,
        "version": version.name,
        "display_name": display_name,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "training_data": "synthetic",
        "trained_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "intended_use": _INTENDED_USE,
        "preprocessing": {"version": 1, "enhancement": state["cohort"]["enhancement"]},
        "tolerance": _TOLERANCE[name],
        **facts,
    }


def _write_card(folder: Path, info: dict[str, Any], card: str) -> None:
    (folder / "model.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    (folder / "MODEL.md").write_text(card, encoding="utf-8")


def _checkpoint(run: Path) -> dict[str, Any]:
    state = checkpoints.load(run)
    if state is None:
        raise SystemExit(f"{run} holds no checkpoint: run `python -m training train` first")
    return state


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
