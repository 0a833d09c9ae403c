"""Score the exported models on held-out subjects: what is measured is what Triton serves."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

import numpy as np
import onnxruntime
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import confusion_matrix, roc_auc_score

from training.charts import draw_reliability
from training.datasets import (
    SEVERE_COUNT,
    Example,
    crops_as_input,
    load_cohort,
    require_severity_labels,
    volume_as_input,
)
from training.rating_scores import Metrics, by_circumstance, rounded, score_ratings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from core.records import Float32Array

_LOG: Final = logging.getLogger(__name__)
BORDERLINE: Final = range(5, 16)
"""Counts near the threshold of ten, where readers disagree too."""


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
        Scores of each model.
    """
    if only != "rating":
        require_severity_labels(cohort)
    examples = load_cohort(cohort, volumes=only != "rating")
    scores: dict[str, Metrics] = {}
    if only in (None, "rating"):
        scores["rating"] = rating_metrics(
            current_network(models / "rating"), examples, enhancement_of(models / "rating")
        )
        if chart is not None:
            draw_reliability(chart, _reliability_curves(scores["rating"]))
    if only in (None, "severity"):
        scores["severity"] = severity_metrics(current_network(models / "severity"), examples)
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


def rating_metrics(model: Path, examples: Sequence[Example], enhancement: str) -> Metrics:
    """Figures of an exported rating model; see `training.rating_scores`."""
    counts = np.stack([example.counts for example in examples])
    answers = rating_answers(model, examples, enhancement)
    return score_ratings(answers, counts) | by_circumstance(answers, counts, examples)


def severity_metrics(model: Path, examples: list[Example]) -> Metrics:
    """Figures of the severity model on full-size volumes (severity paper, Evaluation)."""
    runtime = session(model)
    probability = np.array(
        [
            runtime.run(["probability"], {"volume": volume_as_input(e.volume[None])})[0].item()
            for e in examples
        ]
    )
    counts = np.array([e.severity_count for e in examples])
    severe, answer = counts >= SEVERE_COUNT, probability >= 0.5
    (tn, fp), (fn, tp) = confusion_matrix(severe, answer, labels=[False, True])
    correct = int(tp + tn)
    interval = binomtest(correct, len(examples)).proportion_ci()
    near = np.isin(counts, BORDERLINE)
    return {
        "subjects": len(examples),
        "severe": int(severe.sum()),
        "auc": _auc(severe, probability),
        "accuracy": rounded(correct / len(examples)),
        "accuracy_95ci": [rounded(interval.low), rounded(interval.high)],
        "no_information_rate": rounded(max(severe.mean(), 1 - severe.mean())),
        "sensitivity": rounded(tp / max(tp + fn, 1)),
        "specificity": rounded(tn / max(tn + fp, 1)),
        "f1": rounded(2 * tp / max(2 * tp + fp + fn, 1)),
        "borderline_subjects": int(near.sum()),
        "borderline_auc": _auc(severe[near], probability[near]),
        "borderline_accuracy": rounded(np.mean(severe[near] == answer[near])),
        "confusion": [[int(tn), int(fp)], [int(fn), int(tp)]],
        "count_spearman": rounded(spearmanr(counts, probability).statistic),
    }


def _auc(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    if truth.all() or not truth.any():
        return None
    return rounded(roc_auc_score(truth, score))
