"""Plots shared by model evaluation and reports; drawn without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

_DPI: Final = 80


def draw_reliability(target: Path, curves: dict[str, list[list[float]]]) -> None:
    """Plot accuracy against confidence; the area of a dot shows the number of predictions."""
    figure, panels = plt.subplots(1, len(curves), figsize=(4.4 * len(curves), 4.2))
    for axes, (title, rows) in zip(np.atleast_1d(panels), curves.items(), strict=True):
        confidence, accuracy, predictions = np.array(rows).T
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        axes.plot(confidence, accuracy, color="#3b6ea5")
        axes.scatter(
            confidence, accuracy, s=8 + 400 * predictions / predictions.sum(), color="#3b6ea5"
        )
        axes.set(xlabel="confidence", ylabel="accuracy", title=title, xlim=(0, 1), ylim=(0, 1.02))
        axes.set_aspect("equal")
    save_figure(figure, target)


def save_figure(figure: Figure, target: Path) -> None:
    """Write a figure as PNG and close it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=_DPI, bbox_inches="tight", pil_kwargs={"optimize": True})
    plt.close(figure)
