"""Scores of saliency maps: where the activation lies, and how its distribution relates to errors.

Severity paper, Results: severe cases have high activations in the basal ganglia, and the
distribution of the activation is said to indicate the model's confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy.stats import mannwhitneyu

from training.cohorts.examples import SEVERE_COUNT
from training.cohorts.ground_truth import BASAL_GANGLIA, BRAIN, EPVS
from training.statistics import Metrics, rounded
from worker.grading.stages.severity.saliency import HIGH, PEAK, skewness, spread_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from worker.grading.records import Float32Array


@dataclass(frozen=True)
class SaliencyFigures:
    """Activation in the brain of one subject, with the statistics that the node reports.

    Attributes
    ----------
    in_basal_ganglia, on_epvs : float
        Share of the activation in the basal ganglia, and in blocks that contain an EPVS.
    basal_ganglia, epvs : float
        Share of the brain that these regions occupy: the value expected by chance.
    mean, skewness, share_above_7 : float
        As in `SaliencyMap`.
    """

    in_basal_ganglia: float
    on_epvs: float
    basal_ganglia: float
    epvs: float
    mean: float
    skewness: float
    share_above_7: float


def saliency_figures(saliency: Float32Array, ground_truth: NDArray[np.float16]) -> SaliencyFigures:
    """Compute the figures for one saliency map.

    Parameters
    ----------
    saliency : ndarray, shape (1, 16, 16)
    ground_truth : ndarray, shape (3, 16, 64, 64)
        See `training.cohorts.ground_truth`; it spans the same volume.

    Returns
    -------
    SaliencyFigures
        Shares are 0 if there is no activation in the brain.
    """
    blocks = sitk.Image(ground_truth.shape[:0:-1], sitk.sitkFloat32)
    coarse = sitk.Resample(
        spread_over(saliency, blocks), blocks, sitk.Transform(3, sitk.sitkIdentity)
    )
    activation = sitk.GetArrayFromImage(coarse)
    regions = ground_truth.astype(np.float64)
    brain = regions[BRAIN] > 0.5
    weight = activation[brain].astype(np.float64)
    total = weight.sum() or 1.0
    nuclei, with_epvs = regions[BASAL_GANGLIA][brain], regions[EPVS][brain] > 0
    scaled = weight * (PEAK / weight.max()) if weight.max() > 0 else weight
    return SaliencyFigures(
        in_basal_ganglia=float((weight * nuclei).sum() / total),
        on_epvs=float(weight[with_epvs].sum() / total),
        basal_ganglia=float(nuclei.mean()),
        epvs=float(with_epvs.mean()),
        mean=float(scaled.mean()),
        skewness=skewness(scaled),
        share_above_7=float((scaled > HIGH).mean()),
    )


def score_saliency(
    figures: Sequence[SaliencyFigures], probability: NDArray[np.float64], counts: NDArray[np.int64]
) -> Metrics:
    """Summarise the saliency figures of many subjects.

    Parameters
    ----------
    figures : sequence of SaliencyFigures
    probability, counts : ndarray, shape (subjects,)

    Returns
    -------
    dict
        Medians over the subjects predicted severe, whose activation the paper interprets: shares,
        absolute and relative to chance. Area under the curve for separating correct from wrong
        predictions by skewness.
    """
    predicted_severe = probability >= 0.5
    correct = predicted_severe == (counts >= SEVERE_COUNT)
    chosen = [f for f, is_severe in zip(figures, predicted_severe, strict=True) if is_severe]
    if not chosen:
        return {"predicted_severe": 0}
    nuclei = [f.in_basal_ganglia for f in chosen]
    skewness = separation([f.skewness for f in figures], correct)
    return {
        "predicted_severe": len(chosen),
        "in_basal_ganglia": rounded(np.median(nuclei)),
        "in_basal_ganglia_times_chance": rounded(
            np.median([f.in_basal_ganglia / f.basal_ganglia for f in chosen if f.basal_ganglia])
        ),
        "on_epvs_times_chance": rounded(np.median([f.on_epvs / f.epvs for f in chosen if f.epvs])),
        "skewness_correct_from_wrong": None if skewness is None else [rounded(v) for v in skewness],
    }


def separation(values: Sequence[float], group: NDArray[np.bool_]) -> tuple[float, float] | None:
    """How well a value separates a group from the rest: area under the curve, two-sided p-value.

    None if all or none belong to the group.
    """
    if group.all() or not group.any():
        return None
    every = np.asarray(values)
    found = mannwhitneyu(every[group], every[~group], alternative="two-sided")
    return float(found.statistic / (group.sum() * (~group).sum())), float(found.pvalue)
