"""Plots of the rating reproduction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib.pyplot as plt
import numpy as np

from training.cohorts.examples import crops_as_input, rating_of
from training.plots import save_figure
from training.synthetic.conditions import HARSH, STANDARD
from training.synthetic.grids import PROTOCOLS
from training.synthetic.subjects import make_subject

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from training.cohorts.examples import Example
    from training.reproduction.rating.results import ConfigurationResults

COUNT_EDGES: Final = (0, 1, 3, 6, 9, 11, 13, 16, 19, 21, 23, 30, 38, 41, 43, 200)
"""Edges of the ranges of counts for the error plot, narrow near the boundaries of the ratings."""


def draw_examples(target: Path, examples: Sequence[Example]) -> None:
    """Draw scans of every protocol, and crops of every rating before and after enhancement."""
    figure = plt.figure(figsize=(13, 9.6))
    grid = figure.add_gridspec(4, 10, hspace=0.12, wspace=0.05)
    standard, harsh = list(PROTOCOLS), list(PROTOCOLS)[:2]
    shown = [(name, STANDARD) for name in standard] + [(name, HARSH) for name in harsh]
    for place, (name, conditions) in enumerate(shown):
        subject = make_subject(4004, 5 * place + 3, name, conditions)  # heads with many EPVS
        most = int(subject.visible.sum(axis=0).argmax())
        axes = figure.add_subplot(grid[0, 2 * place : 2 * place + 2])
        _show(axes, subject.voxels[most], f"{name}\n{conditions.name}", most=1300)
    rows = {"none": "as cut", "stationary": "stationary Haar", "block-group": "block-group Haar"}
    counts = np.stack([e.counts for e in examples])
    for rating in range(5):
        ranked = np.argwhere(rating_of(counts) == rating)
        for column, chosen in enumerate((ranked[len(ranked) // 3], ranked[2 * len(ranked) // 3])):
            example, image = examples[chosen[0]], int(chosen[1])
            for row, (method, title) in enumerate(rows.items()):
                axes = figure.add_subplot(grid[row + 1, 2 * rating + column])
                crop = crops_as_input(example.crops[image : image + 1], method)[0, 0]
                heading = f"rating {rating}\n{example.counts[image]} EPVS" if row == 0 else ""
                _show(axes, crop, heading, most=float(np.quantile(crop, 0.998)))
                if rating == 0 and column == 0:
                    axes.set_ylabel(title)
    save_figure(figure, target)


def draw_confusion(target: Path, results: ConfigurationResults) -> None:
    """Draw the confusion matrices of images and subjects, averaged over the repetitions."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2))
    for axes, name, title in zip(
        panels,
        ("image_confusion", "subject_confusion"),
        ("images", "subjects (highest of six)"),
        strict=True,
    ):
        confusion = np.mean([scores[name] for scores in results.scores], axis=0)
        share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(5, 5):
            if confusion[row, column]:
                dark = share[row, column] > 0.5
                axes.text(
                    column,
                    row,
                    f"{confusion[row, column]:.4g}" if confusion[row, column] < 1000 else "",
                    ha="center",
                    va="center",
                    color="white" if dark else "black",
                )
        axes.set(
            xlabel="model", ylabel="ground truth", title=title, xticks=range(5), yticks=range(5)
        )
    save_figure(figure, target)


def draw_accuracy(target: Path, compared: Sequence[ConfigurationResults]) -> None:
    """Draw the image and subject accuracy of every fold of every configuration."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 0.55 * len(compared) + 1.4), sharey=True)
    for axes, measure, title, paper in zip(
        panels,
        ("image", "subject-majority"),
        ("image", "subject (majority of six)"),
        (0.877, 0.803),
        strict=True,
    ):
        for place, results in enumerate(compared):
            values = results.test[measure]
            axes.plot(values, np.full(len(values), place), "o", color="#3b6ea5", alpha=0.45)
            axes.plot(values.mean(), place, "|", color="black", markersize=22, markeredgewidth=2)
        axes.axvline(paper, color="#c0562f", linestyle="--", label="paper, real scans")
        axes.set(title=f"accuracy, {title}", xlim=(0.35, 1.0), xlabel="held-out fold")
        axes.set_yticks(range(len(compared)), [results.configuration.title for results in compared])
        axes.invert_yaxis() if axes is panels[0] else None
        axes.grid(axis="x", alpha=0.3)
    panels[0].legend(loc="lower left", fontsize="small")
    save_figure(figure, target)


def draw_errors(target: Path, rows: Sequence[tuple[str, int, float, float]]) -> None:
    """Draw the shares of images rated too low and too high, by true count."""
    figure, axes = plt.subplots(figsize=(9, 3.4))
    at = np.arange(len(rows))
    low, high = np.array([r[2] for r in rows]), np.array([r[3] for r in rows])
    axes.bar(at, high, color="#c0562f", label="rated too high")
    axes.bar(at, -low, color="#3b6ea5", label="rated too low")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(at, [f"{name}\n({images})" for name, images, _, _ in rows], fontsize="small")
    axes.set(xlabel="true EPVS in the image (images)", ylabel="share of the images")
    axes.legend(fontsize="small")
    save_figure(figure, target)


def _show(axes: Axes, image: np.ndarray, title: str, *, most: float) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=most, interpolation="nearest")
    axes.set_title(title, fontsize="small")
    axes.set_xticks([])
    axes.set_yticks([])
