"""Score the exported models on held-out subjects: what is measured is what Triton serves."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import onnxruntime

from training.cohorts.examples import (
    SEVERE_COUNT,
    Example,
    crops_as_input,
    load_cohort,
    rating_of,
    require_severity_labels,
    volume_as_input,
)
from training.plots import draw_reliability
from training.rating.scores import Metrics, by_circumstance, rounded, score_ratings
from training.severity.saliency_scores import saliency_figures, score_saliency
from training.severity.scores import score_severities
from worker.grading.stages.grade import MODERATE_RATING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from worker.grading.records import Float32Array

_LOG: Final = logging.getLogger(__name__)


def session(model: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open an exported model with onnxruntime, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def evaluate_models(
    cohort: Path,
    models: Path,
    *,
    only: str | None = None,
    out: Path | None = None,
    chart: Path | None = None,
) -> dict[str, Metrics]:
    """Score the model repository on a stored cohort.

    Parameters
    ----------
    cohort : Path
        Held-out subjects.
    models : Path
        ``triton_models``.
    only : {"rating", "severity"}, optional
    out : Path, optional
        Where the scores go as JSON.
    chart : Path, optional
        PNG file of the rating's reliability curves.

    Returns
    -------
    dict
        Scores of each model, and of both together.
    """
    if only != "rating":
        require_severity_labels(cohort)
    examples = load_cohort(cohort, volumes=only != "rating")
    scores: dict[str, Metrics] = {}
    if only != "severity":
        folder = models / "rating"
        ratings = rating_answers(current_network(folder), examples, enhancement_of(folder))
        scores["rating"] = rating_metrics(ratings, examples)
        if chart is not None:
            draw_reliability(chart, _reliability_curves(scores["rating"]))
    if only != "rating":
        severity = severity_answers(current_network(models / "severity"), examples)
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
    """Name the curves by level and calibration error."""
    found = {level: metrics[f"{level}_calibration"] for level in ("image", "subject")}
    return {
        f"{level} (calibration error {curve['expected_calibration_error']:.3f})": curve[
            "confidence_accuracy_answers"
        ]
        for level, curve in found.items()
    }


def current_network(model: Path) -> Path:
    """``model.onnx`` of the version that ``model.json`` describes."""
    info = json.loads((model / "model.json").read_text(encoding="utf-8"))
    return model / str(info["version"]) / "model.onnx"


def enhancement_of(model: Path) -> str:
    """Haar enhancement that the current version was trained on."""
    info = json.loads((model / "model.json").read_text(encoding="utf-8"))
    return str(info["preprocessing"]["enhancement"])


def rating_answers(model: Path, examples: Sequence[Example], enhancement: str) -> Float32Array:
    """Probabilities, shape (subjects, 6, 5), that an exported rating model gives."""
    runtime = session(model)
    return np.stack(
        [
            runtime.run(None, {"crops": crops_as_input(example.crops, enhancement)})[0]
            for example in examples
        ]
    )


def rating_metrics(answers: Float32Array, examples: Sequence[Example]) -> Metrics:
    """Figures of the rating model; see `training.rating.scores`."""
    counts = np.stack([example.counts for example in examples])
    return score_ratings(answers, counts) | by_circumstance(answers, counts, examples)


class SeverityAnswers(NamedTuple):
    """What an exported severity model says of subjects.

    Attributes
    ----------
    probability : ndarray, shape (subjects,)
    saliency : ndarray, shape (subjects, 1, 16, 16)
    """

    probability: NDArray[np.float64]
    saliency: Float32Array


def severity_answers(model: Path, examples: Sequence[Example]) -> SeverityAnswers:
    """Run an exported severity model on full-size volumes."""
    runtime = session(model)
    found = [
        runtime.run(["probability", "saliency"], {"volume": volume_as_input(e.volume[None])})
        for e in examples
    ]
    return SeverityAnswers(
        np.array([probability.item() for probability, _ in found]),
        np.concatenate([saliency for _, saliency in found]),
    )


def joint_metrics(
    ratings: Float32Array, severity: NDArray[np.float64], examples: Sequence[Example]
) -> Metrics:
    """How often the two models contradict each other, as the node would flag it.

    The truths may differ too: the rating knows six images, severity all slices.
    """
    rated = ratings.argmax(axis=2).max(axis=1) >= MODERATE_RATING
    counts = np.stack([example.counts for example in examples])
    truly_rated = rating_of(counts).max(axis=1) >= MODERATE_RATING
    truly_severe = np.array([e.severity_count for e in examples]) >= SEVERE_COUNT
    flagged, truths_differ = rated != (severity >= 0.5), truly_rated != truly_severe
    return {
        "subjects": len(examples),
        "flagged": rounded(flagged.mean()),
        "truths_differ": rounded(truths_differ.mean()),
        "flagged_where_truths_agree": rounded(flagged[~truths_differ].mean()),
    }


def severity_metrics(answers: SeverityAnswers, examples: Sequence[Example]) -> Metrics:
    """Figures of the severity model: scores, and scores of its saliency."""
    counts = np.array([e.severity_count for e in examples])
    metrics = score_severities(answers.probability, counts)
    if not all(e.severity_truth.size for e in examples):
        return metrics
    figures = [
        saliency_figures(saliency, e.severity_truth)
        for saliency, e in zip(answers.saliency, examples, strict=True)
    ]
    return metrics | {"saliency": score_saliency(figures, answers.probability, counts)}
