"""Figures of the severity reproduction."""

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

    from numpy.typing import NDArray

    from training.cohorts.examples import Example
    from training.reproduction.severity.jobs import Answers

_BLUE: Final = "#3b6ea5"
_ORANGE: Final = "#c0562f"
_CENTRE: Final = 112
"""Pixels around the middle of the volume that are drawn."""


def draw_test(target: Path, answers: Answers, auc: float) -> None:
    """Draw the ROC curve of the test, and its confusion (the paper's Fig. 1)."""
    severe, predicted = answers.severe, answers.called_severe
    figure, (roc, table) = plt.subplots(1, 2, figsize=(8.4, 3.8), layout="constrained")
    false_positive, true_positive, _ = roc_curve(severe, answers.probability)
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
    table.set(xlabel="model", ylabel="truth", title="test, subjects")
    save_figure(figure, target)


def draw_designs(target: Path, aucs: Mapping[str, Sequence[float]]) -> None:
    """AUC of every fold of every design."""
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


def draw_saliency(
    target: Path, examples: Sequence[Example], answers: Answers, saliency: NDArray[np.float32]
) -> None:
    """Draw a case of each kind: input, activation, and where its EPVS lie (Figs. 2 and 3)."""
    shown = {
        name: np.flatnonzero(chosen) for name, chosen in answers.outcomes.items() if chosen.any()
    }
    figure, rows = plt.subplots(len(shown), 3, figsize=(9.5, 3.3 * len(shown)), squeeze=False)
    for axes, (name, cases) in zip(rows, shown.items(), strict=True):
        sure = np.abs(answers.probability[cases] - 0.5)
        case = int(cases[sure.argmax()])
        example, count = examples[case], answers.count[case]
        truth = example.severity_truth.astype(np.float32)
        plane = int(truth[BASAL_GANGLIA].sum(axis=(1, 2)).argmax())
        half = example.volume.shape[1] // 2
        middle = slice(half - _CENTRE, half + _CENTRE)
        image = example.volume[plane, middle, middle]
        axes[0].imshow(image, cmap="gray")
        axes[0].set_ylabel(f"{name}\n{count} EPVS, P = {answers.probability[case]:.2f}")
        axes[1].imshow(saliency[case, 0], cmap="cividis")
        axes[2].imshow(truth[EPVS].sum(axis=0), cmap="cividis")
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
