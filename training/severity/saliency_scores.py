"""Where the severity network's activation lies, and what its distribution says.

Severity paper, Results: high activations in the basal ganglia mark severe cases, and their
distribution is said to be indicative of the model's confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy.stats import mannwhitneyu

from training.cohorts.examples import SEVERE_COUNT
from training.cohorts.ground_truth import BASAL_GANGLIA, BRAIN, EPVS
from training.rating.scores import Metrics, rounded
from worker.grading.stages.severity.saliency import HIGH, PEAK, skewness, spread_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from worker.grading.records import Float32Array


@dataclass(frozen=True)
class SaliencyFigures:
    """Activation of one subject over its brain, as the node describes it.

    Attributes
    ----------
    in_basal_ganglia, on_epvs : float
        Share of the activation in the basal ganglia, and in blocks that hold an EPVS.
    basal_ganglia, epvs : float
        Share of the brain that these are: what chance would give.
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


def saliency_figures(saliency: Float32Array, truth: NDArray[np.float16]) -> SaliencyFigures:
    """Describe one subject's activation.

    Parameters
    ----------
    saliency : ndarray, shape (1, 16, 16)
    truth : ndarray, shape (3, 16, 64, 64)
        Of `training.cohorts.ground_truth`; what the activation spans.

    Returns
    -------
    SaliencyFigures
        Shares are 0 where nothing in the brain is active.
    """
    blocks = sitk.Image(truth.shape[:0:-1], sitk.sitkFloat32)
    coarse = sitk.Resample(
        spread_over(saliency, blocks), blocks, sitk.Transform(3, sitk.sitkIdentity)
    )
    activation = sitk.GetArrayFromImage(coarse)
    places = truth.astype(np.float64)
    brain = places[BRAIN] > 0.5
    weight = activation[brain].astype(np.float64)
    total = weight.sum() or 1.0
    nuclei, with_epvs = places[BASAL_GANGLIA][brain], places[EPVS][brain] > 0
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
    """Where the activation of many subjects lies.

    Parameters
    ----------
    figures : sequence of SaliencyFigures
    probability, counts : ndarray, shape (subjects,)

    Returns
    -------
    dict
        Medians of those called severe, whose activation the paper interprets: shares, and how many
        times as large they are as chance gives. Areas under the curve of right over wrong answers.
    """
    called_severe = probability >= 0.5
    right = called_severe == (counts >= SEVERE_COUNT)
    chosen = [f for f, is_severe in zip(figures, called_severe, strict=True) if is_severe]
    if not chosen:
        return {"called_severe": 0}
    nuclei = [f.in_basal_ganglia for f in chosen]
    skewness = tells_right_from_wrong([f.skewness for f in figures], right)
    return {
        "called_severe": len(chosen),
        "in_basal_ganglia": rounded(np.median(nuclei)),
        "in_basal_ganglia_times_chance": rounded(
            np.median([f.in_basal_ganglia / f.basal_ganglia for f in chosen if f.basal_ganglia])
        ),
        "on_epvs_times_chance": rounded(np.median([f.on_epvs / f.epvs for f in chosen if f.epvs])),
        "skewness_right_from_wrong": None if skewness is None else [rounded(v) for v in skewness],
    }


def tells_right_from_wrong(
    values: Sequence[float], right: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Area under the curve of "right" over "wrong" by one figure, and its two-sided p.

    None where all answers are right, or all wrong.
    """
    if right.all() or not right.any():
        return None
    of = np.asarray(values)
    found = mannwhitneyu(of[right], of[~right], alternative="two-sided")
    return float(found.statistic / (right.sum() * (~right).sum())), float(found.pvalue)
