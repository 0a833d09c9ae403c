"""Scores of severities: those of the severity paper, and scores near the threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import confusion_matrix, roc_auc_score

from training.cohorts.examples import SEVERE_COUNT
from training.statistics import Interval, Metrics, proportion, reliability, rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

BORDERLINE: Final = range(5, 16)
"""Counts near the threshold of ten, on which readers disagree too."""
_RESAMPLES: Final = 2000


def score_severities(probability: NDArray[np.float64], counts: NDArray[np.int64]) -> Metrics:
    """Scores of the severity paper's sections Evaluation and Results.

    Parameters
    ----------
    probability : ndarray, shape (subjects,)
        Probability of at least ten EPVS.
    counts : ndarray, shape (subjects,)
        EPVS in the slice and hemisphere with most of them.

    Returns
    -------
    dict
        Proportions with exact 95 % intervals, the AUC with a bootstrap interval, and the one-sided
        binomial test against the no-information rate (the share of the larger class).
    """
    severe, predicted = counts >= SEVERE_COUNT, probability >= 0.5
    (tn, fp), (fn, tp) = confusion_matrix(severe, predicted, labels=[False, True]).tolist()
    no_information = max(severe.mean(), 1 - severe.mean())
    near = np.isin(counts, BORDERLINE)
    confidence = np.maximum(probability, 1 - probability)
    return {
        "subjects": len(counts),
        "severe": int(severe.sum()),
        "auc": _auc(severe, probability),
        "auc_95ci": _interval(auc_interval(severe, probability)),
        "accuracy": rounded((tp + tn) / len(counts)),
        "accuracy_95ci": _interval(proportion(tp + tn, len(counts))),
        "no_information_rate": rounded(no_information),
        "no_information_p": float(
            binomtest(tp + tn, len(counts), no_information, alternative="greater").pvalue
        ),
        "sensitivity": _share(tp, tp + fn),
        "specificity": _share(tn, tn + fp),
        "ppv": _share(tp, tp + fp),
        "npv": _share(tn, tn + fn),
        "f1": rounded(2 * tp / max(2 * tp + fp + fn, 1)),
        "calibration_error": rounded(reliability(confidence, severe == predicted).error),
        "borderline_subjects": int(near.sum()),
        "borderline_auc": _auc(severe[near], probability[near]),
        "borderline_accuracy": rounded(np.mean(severe[near] == predicted[near]))
        if near.any()
        else None,
        "confusion": [[tn, fp], [fn, tp]],
        "count_spearman": rounded(spearmanr(counts, probability).statistic),
    }


def auc_interval(
    positives: NDArray[np.bool_], score: NDArray[np.float64], seed: int = 0
) -> Interval:
    """Area under the ROC curve with its bootstrap interval, resampled within the classes.

    NaN if there is only one class.
    """
    if positives.all() or not positives.any():
        return Interval(np.nan, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    positive, negative = score[positives], score[~positives]
    ranks = np.sign(np.subtract.outer(positive, negative)) / 2 + 0.5
    areas = [
        ranks[
            np.ix_(
                rng.integers(len(positive), size=len(positive)),
                rng.integers(len(negative), size=len(negative)),
            )
        ].mean()
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(areas, [0.025, 0.975])
    return Interval(float(ranks.mean()), float(low), float(high))


def _auc(positives: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    if positives.all() or not positives.any():
        return None
    return rounded(roc_auc_score(positives, score))


def _share(part: int, whole: int) -> float:
    return rounded(part / max(whole, 1))


def _interval(found: Interval) -> list[Any]:
    return [None if np.isnan(v) else rounded(v) for v in (found.low, found.high)]
