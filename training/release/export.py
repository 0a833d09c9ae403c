"""Exports a training run to the model repository: ONNX file, golden test, description and card.

Every backend serves the ONNX file or an engine built from it, so that the golden outputs and the
scores in the card are computed with it and not with PyTorch. Every export is a new version;
existing versions are never changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from core.errors import ConfigurationError
from core.model_versions import versions
from core.results import parse_statement
from training import checkpoints
from training.cohorts.folder import describe_cohort, load_cohort, require_severity_labels
from training.rating import network as rating_network
from training.release.cards import rating_card, severity_card
from training.release.evaluate import (
    predict_ratings,
    predict_severities,
    rating_metrics,
    severity_metrics,
)
from training.release.golden import golden_crops, golden_volume, write_golden
from training.release.precision.parity import TOLERANCE
from training.release.precision.write import write_fp16
from training.severity import network as severity_network
from training.storage import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


OPSET: Final = 17
"""Supported by onnxruntime ≥ 1.13 and TensorRT ≥ 8.6."""
_PREPROCESSING: Final[dict[str, Any]] = {"version": 1}
_TRAINED_ON: Final = {"synthetic": "synthetic", "site": "site cohort"}
"""``training_data`` in ``model.json``, by kind of cohort."""
INTENDED_USE: Final = {
    "synthetic": (
        "Not for clinical use: the models were trained on synthetic data. Research use only; "
        "not a medical device; not for diagnosis or treatment decisions."
    ),
    "site": (
        "Research use only: trained on one site's own readings, not validated; "
        "not a medical device; not for diagnosis or treatment decisions."
    ),
}
"""Default of ``intended_use`` in ``model.json``, by kind of cohort."""


def export_rating(
    run: Path,
    cohort: Path,
    models: Path,
    version: int | None = None,
    intended_use: str | None = None,
) -> Path:
    """Export the rating model as a new version.

    Parameters
    ----------
    run : Path
        Folder of a run of `training.rating.train.train_rating`.
    cohort : Path
        Held-out subjects, for the golden input and the scores in the card.
    models : Path
        ``triton_models``.
    version : int, optional
        By default one above the highest.
    intended_use : str, optional
        Statement that every report of this model repeats: SR, pictures, SQL, HL7, command line.
        By default it says that the model is for research only, and what it was trained on.

    Returns
    -------
    Path
        The new version's folder.

    Raises
    ------
    ConfigurationError
        The version exists or is not above all others; the run has no checkpoint; the cohort is
        the training cohort; the intended use is not one line of ASCII text.
    """
    state = checkpoints.require(run)
    statement = _intended_use(state, intended_use)
    _check_held_out(state["cohort"], describe_cohort(cohort))
    number = new_version(models / "rating", version)
    net = rating_network.RatingNet(state["plan"]["filters"])
    enhancement = state["plan"]["enhancement"]
    net.load_state_dict(state["best_weights"])
    examples = load_cohort(cohort, volumes=False)
    with _new_folder(models / "rating", number) as folder:
        network = folder / "model.onnx"
        to_onnx(net, (1, *rating_network.INPUT_SHAPE), network, "crops", ["probabilities"])
        write_golden(folder, "crops", golden_crops(network, examples, enhancement))
        fp16 = write_fp16(folder, "rating", examples, enhancement)
        info = _describe(
            "rating",
            "EPVS rating CNN",
            number,
            network,
            state,
            statement,
            **fp16,
            architecture={
                "family": "2-D CNN (rating paper, section 2.4.2)",
                "filters": list(state["plan"]["filters"]),
                "parameters": _count(net) - _count(net.log_count),
            },
            training={
                "cohort": state["cohort"],
                "epochs": state["epoch"],
                "plan": state["plan"],
                "temperature": round(net.temperature.item(), 4),
            },
            held_out=describe_cohort(cohort),
            metrics=rating_metrics(predict_ratings(network, examples, enhancement), examples),
            inputs={"crops": [-1, *rating_network.INPUT_SHAPE]},
            outputs={"probabilities": [-1, rating_network.RATINGS]},
        )
        _write_card(folder, info, rating_card(info))
    return models / "rating" / str(number)


def export_severity(
    run: Path,
    cohort: Path,
    models: Path,
    version: int | None = None,
    intended_use: str | None = None,
) -> Path:
    """Export the severity model; parameters, result and errors as for `export_rating`."""
    require_severity_labels(cohort)
    state = checkpoints.require(run)
    statement = _intended_use(state, intended_use)
    _check_held_out(state["cohort"], describe_cohort(cohort))
    number = new_version(models / "severity", version)
    plan = state["plan"]
    net = severity_network.SeverityNet(plan["layers"], plan["width"])
    net.load_state_dict(state["best_weights"])
    shape = (1, *severity_network.INPUT_SHAPE)
    examples = load_cohort(cohort)
    with _new_folder(models / "severity", number) as folder:
        network = folder / "model.onnx"
        to_onnx(net, shape, network, "volume", ["probability", "saliency"])
        write_golden(folder, "volume", golden_volume(network, examples))
        fp16 = write_fp16(folder, "severity", examples, "none")
        info = _describe(
            "severity",
            f"EPVS severity 3D-ResNet-{plan['layers']}",
            number,
            network,
            state,
            statement,
            **fp16,
            architecture={
                "family": "3-D ResNet (severity paper, Methods) with closed-form Grad-CAM",
                "layers": plan["layers"],
                "units": list(severity_network.UNITS[plan["layers"]]),
                "stem_filters": plan["width"],
                "width_factor": plan["width"] / severity_network.FULL_WIDTH,
                "padding_planes": False,
                "parameters": _count(net) - _count(net.log_count),
            },
            training={
                "cohort": state["cohort"],
                "epochs": sum(phase["epochs"] for phase in state["phases"]),
                "phases": state["phases"],
            },
            held_out=describe_cohort(cohort),
            metrics=severity_metrics(predict_severities(network, examples), examples),
            inputs={"volume": [-1, *severity_network.INPUT_SHAPE]},
            outputs={"probability": [-1, 1], "saliency": [-1, 1, 16, 16]},
        )
        _write_card(folder, info, severity_card(info))
    return models / "severity" / str(number)


def new_version(model: Path, requested: int | None = None) -> int:
    """Return the version to export: one above the highest, or the requested one.

    Raises
    ------
    ConfigurationError
        The requested version exists or is not above all others.
    """
    existing = [int(version) for version in versions(model)]
    highest = max(existing, default=0)
    if requested is not None and requested <= highest:
        state = "exists" if requested in existing else f"is below version {highest}"
        raise ConfigurationError(
            f"Version {requested} of {model.name} {state}; an export never replaces another.",
            f"Leave --version out: the next is {highest + 1}.",
        )
    return highest + 1 if requested is None else requested


@contextmanager
def _new_folder(model: Path, version: int) -> Iterator[Path]:
    """Yield a temporary folder, which becomes the version folder on success."""
    building = model / f"building-{version}"  # not a number, hence not a version
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        yield building
        building.rename(model / str(version))
    finally:
        shutil.rmtree(building, ignore_errors=True)


def to_onnx(
    net: nn.Module, shape: tuple[int, ...], target: Path, input_name: str, outputs: list[str]
) -> None:
    """Write a network as one ONNX file with a dynamic batch size.

    Parameters
    ----------
    net : Module
    shape : tuple of int
        Shape of an example input, batch first.
    target : Path
    input_name : str
    outputs : list of str
    """
    with atomic_write(target) as path:
        torch.onnx.export(
            net.eval(),
            (torch.zeros(shape),),
            str(path),
            input_names=[input_name],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in (input_name, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )


def _describe(
    name: str,
    display_name: str,
    version: int,
    network: Path,
    state: dict[str, Any],
    intended_use: str,
    **facts: Any,
) -> dict[str, Any]:
    weights = network.read_bytes()
    return {
        "name": name,
        "version": str(version),
        "display_name": display_name,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "golden_sha256": hashlib.sha256(network.with_name("golden.npz").read_bytes()).hexdigest(),
        "training_data": _TRAINED_ON[state["cohort"]["kind"]],
        "trained_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "intended_use": intended_use,
        "research_use_only": True,
        "preprocessing": _PREPROCESSING | _enhancement(state),
        "tolerance": TOLERANCE[name],
        **facts,
    }


def _intended_use(state: dict[str, Any], given: str | None) -> str:
    """Return the statement of the site, or the default for the cohort of the run."""
    try:
        return parse_statement(INTENDED_USE[state["cohort"]["kind"]] if given is None else given)
    except ValueError as error:
        raise ConfigurationError(
            f"The intended use cannot be exported: {error}.", "Shorten or rewrite --intended-use."
        ) from None


def _write_card(folder: Path, info: dict[str, Any], card: str) -> None:
    """Write ``model.json`` and the card."""
    (folder / "model.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    (folder / "MODEL.md").write_text(card, encoding="utf-8")


def _check_held_out(trained_on: dict[str, Any], held_out: dict[str, Any]) -> None:
    same = [trained_on.get(key) == held_out.get(key) for key in ("kind", "seed", "csv_sha256")]
    if all(same):
        raise ConfigurationError(
            "The held-out cohort is the training cohort.",
            "Export with subjects that were not used for training.",
        )


def _enhancement(state: dict[str, Any]) -> dict[str, str]:
    """Return the Haar enhancement of a rating run; a severity run has none."""
    plan = state["plan"]
    return {"enhancement": plan.get("enhancement", "none")}


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
