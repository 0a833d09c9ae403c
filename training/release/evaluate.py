"""Evaluation of the exported models, the files that Triton serves, on held-out subjects."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import onnxruntime

from core.model_versions import newest_version
from training.cohorts.examples import (
    SEVERE_COUNT,
    Example,
    crops_as_input,
    rating_of,
    volume_as_input,
)
from training.cohorts.folder import load_cohort, require_severity_labels
from training.plots import draw_reliability
from training.rating.scores import by_circumstance, score_ratings
from training.severity.saliency_scores import saliency_figures, score_saliency
from training.severity.scores import score_severities
from training.statistics import Metrics, rounded
from worker.grading.stages.grade import MODERATE_RATING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from worker.grading.records import Float32Array

_LOG: Final = logging.getLogger(__name__)


def session(model: Path | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open an exported model with onnxruntime, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def evaluate_models(
    cohort: Path,
    models: Path,
    *,
    only: str | None = None,
    out: Path | None = None,
    chart: Path | None = None,
) -> dict[str, Metrics]:
    """Score the models of a repository on a stored cohort.

    Parameters
    ----------
    cohort : Path
        Held-out subjects.
    models : Path
        ``triton_models``.
    only : {"rating", "severity"}, optional
    out : Path, optional
        JSON file to write the scores to.
    chart : Path, optional
        PNG file for the reliability curves of the rating model.

    Returns
    -------
    dict
        Scores of each model, and of the agreement between them.
    """
    if only != "rating":
        require_severity_labels(cohort)
    examples = load_cohort(cohort, volumes=only != "rating")
    scores: dict[str, Metrics] = {}
    if only != "severity":
        folder = models / "rating"
        ratings = predict_ratings(current_network(folder), examples, enhancement_of(folder))
        scores["rating"] = rating_metrics(ratings, examples)
        if chart is not None:
            draw_reliability(chart, _reliability_curves(scores["rating"]))
    if only != "rating":
        severity = predict_severities(current_network(models / "severity"), examples)
        scores["severity"] = severity_metrics(severity, examples)
    if only is None:
        scores["joint"] = joint_metrics(ratings, severity.probability, examples)
    for name, metrics in scores.items():
        for metric, value in metrics.items():
            _LOG.info("%s %s: %s", name, metric, value)
    if out is not None:
        out.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return scores


def _reliability_curves(metrics: Metrics) -> dict[str, list[list[float]]]:
    """Return both reliability curves with their titles."""
    found = {level: metrics[f"{level}_calibration"] for level in ("image", "subject")}
    return {
        f"{level} (calibration error {curve['expected_calibration_error']:.3f})": curve[
            "confidence_accuracy_count"
        ]
        for level, curve in found.items()
    }


def current_network(model: Path) -> Path:
    """Return ``model.onnx`` of the highest version."""
    return model / newest_version(model) / "model.onnx"


def enhancement_of(model: Path) -> str:
    """Return the Haar enhancement that the highest version was trained with."""
    path = model / newest_version(model) / "model.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    return str(info["preprocessing"]["enhancement"])


def predict_ratings(model: Path, examples: Sequence[Example], enhancement: str) -> Float32Array:
    """Run an exported rating model; returns probabilities, shape (subjects, 6, 5)."""
    runtime = session(model)
    return np.stack(
        [
            runtime.run(None, {"crops": crops_as_input(example.crops, enhancement)})[0]
            for example in examples
        ]
    )


def rating_metrics(probabilities: Float32Array, examples: Sequence[Example]) -> Metrics:
    """Scores of the rating model; see `training.rating.scores`."""
    counts = np.stack([example.counts for example in examples])
    return score_ratings(probabilities, counts) | by_circumstance(probabilities, counts, examples)


class SeverityPredictions(NamedTuple):
    """Predictions of an exported severity model.

    Attributes
    ----------
    probability : ndarray, shape (subjects,)
    saliency : ndarray, shape (subjects, 1, 16, 16)
    """

    probability: NDArray[np.float64]
    saliency: Float32Array


def predict_severities(model: Path, examples: Sequence[Example]) -> SeverityPredictions:
    """Run an exported severity model on full-size volumes."""
    runtime = session(model)
    found = [
        runtime.run(["probability", "saliency"], {"volume": volume_as_input(e.volume[None])})
        for e in examples
    ]
    return SeverityPredictions(
        np.array([probability.item() for probability, _ in found]),
        np.concatenate([saliency for _, saliency in found]),
    )


def joint_metrics(
    ratings: Float32Array, severity: NDArray[np.float64], examples: Sequence[Example]
) -> Metrics:
    """How often the predictions of the two models contradict each other, as flagged by the node.

    The labels can contradict each other too: rating uses six images, severity all slices.
    """
    predicted_rated = ratings.argmax(axis=2).max(axis=1) >= MODERATE_RATING
    counts = np.stack([example.counts for example in examples])
    expected_rated = rating_of(counts).max(axis=1) >= MODERATE_RATING
    expected_severe = np.array([e.severity_count for e in examples]) >= SEVERE_COUNT
    flagged, labels_differ = predicted_rated != (severity >= 0.5), expected_rated != expected_severe
    return {
        "subjects": len(examples),
        "flagged": rounded(flagged.mean()),
        "labels_differ": rounded(labels_differ.mean()),
        "flagged_where_labels_agree": rounded(flagged[~labels_differ].mean()),
    }


def severity_metrics(predictions: SeverityPredictions, examples: Sequence[Example]) -> Metrics:
    """Scores of the severity model and, for synthetic scans, of its saliency maps."""
    counts = np.array([e.severity_count for e in examples])
    metrics = score_severities(predictions.probability, counts)
    if not all(e.ground_truth.size for e in examples):
        return metrics
    figures = [
        saliency_figures(saliency, e.ground_truth)
        for saliency, e in zip(predictions.saliency, examples, strict=True)
    ]
    return metrics | {"saliency": score_saliency(figures, predictions.probability, counts)}
