"""Plots of the severity reproduction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_curve

from training.cohorts.ground_truth import BASAL_GANGLIA, EPVS
from training.plots import save_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from training.cohorts.examples import Example
    from training.reproduction.severity.results import JobResult

_BLUE: Final = "#3b6ea5"
_ORANGE: Final = "#c0562f"
_CENTRE: Final = 112
"""Half the edge length (pixels) of the central part of the volume that is drawn."""


def draw_test(target: Path, result: JobResult, auc: float) -> None:
    """Draw the ROC curve and the confusion matrix of the test (the paper's Fig. 1)."""
    severe, predicted = result.severe, result.predicted_severe
    figure, (roc, table) = plt.subplots(1, 2, figsize=(8.4, 3.8), layout="constrained")
    false_positive, true_positive, _ = roc_curve(severe, result.probability)
    roc.plot(false_positive, true_positive, color=_BLUE)
    roc.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    roc.set(xlabel="1 − specificity", ylabel="sensitivity", title=f"test, AUC {auc:.3f}")
    roc.set_aspect("equal")
    confusion = np.array(
        [[np.sum((severe == t) & (predicted == p)) for p in (0, 1)] for t in (0, 1)]
    )
    table.imshow(confusion, cmap="Blues", vmin=0, vmax=confusion.sum())
    for row, column in np.ndindex(2, 2):
        table.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=16)
    names = ["none-to-mild", "moderate-\nto-severe"]
    table.set_xticks(range(2), names)
    table.set_yticks(range(2), names)
    table.set(xlabel="model", ylabel="ground truth", title="test, subjects")
    save_figure(figure, target)


def draw_designs(target: Path, aucs: Mapping[str, Sequence[float]]) -> None:
    """Draw the AUC of every fold of every design."""
    figure, axes = plt.subplots(figsize=(7.5, 0.5 * len(aucs) + 1.2))
    for place, values in enumerate(aucs.values()):
        axes.plot(values, np.full(len(values), place), "o", color=_BLUE, alpha=0.5)
        axes.plot(np.mean(values), place, "|", color="black", markersize=20, markeredgewidth=2)
    axes.set_yticks(range(len(aucs)), list(aucs))
    axes.invert_yaxis()
    axes.axvline(0.5, color="grey", linewidth=0.8)
    axes.set(xlabel="AUC of the held-out fold", xlim=(0.4, 1.01))
    axes.grid(axis="x", alpha=0.3)
    save_figure(figure, target)


def draw_saliency(target: Path, examples: Sequence[Example], result: JobResult) -> None:
    """Draw input, activation and EPVS for one case of each outcome (Figs. 2 and 3)."""
    shown = {
        name: np.flatnonzero(chosen) for name, chosen in result.outcomes.items() if chosen.any()
    }
    figure, rows = plt.subplots(len(shown), 3, figsize=(9.5, 3.3 * len(shown)), squeeze=False)
    for axes, (name, cases) in zip(rows, shown.items(), strict=True):
        confidence = np.abs(result.probability[cases] - 0.5)
        case = int(cases[confidence.argmax()])
        example, count = examples[case], result.count[case]
        regions = example.ground_truth.astype(np.float32)
        plane = int(regions[BASAL_GANGLIA].sum(axis=(1, 2)).argmax())
        half = example.volume.shape[1] // 2
        middle = slice(half - _CENTRE, half + _CENTRE)
        image = example.volume[plane, middle, middle]
        axes[0].imshow(image, cmap="gray")
        axes[0].set_ylabel(f"{name}\n{count} EPVS, P = {result.probability[case]:.2f}")
        axes[1].imshow(result.saliency[case, 0], cmap="cividis")
        axes[2].imshow(regions[EPVS].sum(axis=0), cmap="cividis")
    for axes, title in zip(
        rows[0],
        ("input (middle of one slice)", "activation, all slices", "EPVS, all slices"),
        strict=True,
    ):
        axes.set_title(title, fontsize="medium")
    for axes in rows.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    save_figure(figure, target)
