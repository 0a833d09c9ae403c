"""Score the exported models on held-out subjects: what is measured is what Triton serves."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import confusion_matrix, roc_auc_score

from training.datasets import (
    SEVERE_COUNT,
    Example,
    crops_as_input,
    load_cohort,
    rating_of,
    require_severity_labels,
    volume_as_input,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_LOG: Final = logging.getLogger(__name__)
BORDERLINE: Final = range(5, 16)
"""Counts near the threshold of ten, where readers disagree too."""

Metrics = dict[str, Any]


def session(model: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open an exported model with onnxruntime, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def evaluate_models(
    cohort: Path, models: Path, *, only: str | None = None, out: Path | None = None
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
        Where the figures go as JSON.

    Returns
    -------
    dict
        Metrics of each model.
    """
    if only != "rating":
        require_severity_labels(cohort)
    examples = load_cohort(cohort)
    figures: dict[str, Metrics] = {}
    if only in (None, "rating"):
        figures["rating"] = rating_metrics(current_network(models / "rating"), examples)
    if only in (None, "severity"):
        figures["severity"] = severity_metrics(current_network(models / "severity"), examples)
    for name, metrics in figures.items():
        for metric, value in metrics.items():
            _LOG.info("%s %s: %s", name, metric, value)
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def current_network(model: Path) -> Path:
    """``model.onnx`` of the version that ``model.json`` describes."""
    info = json.loads((model / "model.json").read_text(encoding="utf-8"))
    return model / str(info["version"]) / "model.onnx"


def rating_metrics(model: Path, examples: list[Example]) -> Metrics:
    """Image and subject figures of the rating model (rating paper, section 2.5).

    The subject's rating is the highest of its six images; the majority vote is given beside it.
    """
    runtime = session(model)
    answers = [runtime.run(None, {"crops": crops_as_input(e.crops)})[0] for e in examples]
    predicted = np.stack(answers).argmax(axis=2)
    truth = rating_of(np.stack([e.counts for e in examples]))
    highest, true_highest = predicted.max(axis=1), truth.max(axis=1)
    majority = np.array([_majority(row) for row in predicted])
    true_majority = np.array([_majority(row) for row in truth])
    return {
        "subjects": len(examples),
        "images": int(truth.size),
        "image_accuracy": _round(np.mean(predicted == truth)),
        "image_within_one": _round(np.mean(np.abs(predicted - truth) <= 1)),
        "image_spearman": _round(spearmanr(predicted.ravel(), truth.ravel()).statistic),
        "image_most_frequent_rating": _round(np.bincount(truth.ravel()).max() / truth.size),
        "subject_accuracy": _round(np.mean(highest == true_highest)),
        "subject_within_one": _round(np.mean(np.abs(highest - true_highest) <= 1)),
        "subject_spearman": _round(spearmanr(highest, true_highest).statistic),
        "subject_majority_accuracy": _round(np.mean(majority == true_majority)),
        "image_confusion": confusion_matrix(
            truth.ravel(), predicted.ravel(), labels=range(5)
        ).tolist(),
        "subject_confusion": confusion_matrix(true_highest, highest, labels=range(5)).tolist(),
    }


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
        "accuracy": _round(correct / len(examples)),
        "accuracy_95ci": [_round(interval.low), _round(interval.high)],
        "no_information_rate": _round(max(severe.mean(), 1 - severe.mean())),
        "sensitivity": _round(tp / max(tp + fn, 1)),
        "specificity": _round(tn / max(tn + fp, 1)),
        "f1": _round(2 * tp / max(2 * tp + fp + fn, 1)),
        "borderline_subjects": int(near.sum()),
        "borderline_auc": _auc(severe[near], probability[near]),
        "borderline_accuracy": _round(np.mean(severe[near] == answer[near])),
        "confusion": [[int(tn), int(fp)], [int(fn), int(tp)]],
        "count_spearman": _round(spearmanr(counts, probability).statistic),
    }


def _majority(ratings: NDArray[np.int64]) -> int:
    """Most frequent rating; the higher one of two that are equally frequent."""
    frequency = np.bincount(ratings, minlength=5)
    return int(np.flatnonzero(frequency == frequency.max())[-1])


def _auc(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    if truth.all() or not truth.any():
        return None
    return _round(roc_auc_score(truth, score))


def _round(value: Any) -> float:
    return round(float(value), 4)
