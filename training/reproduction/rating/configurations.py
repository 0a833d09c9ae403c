"""Training configurations that the reproduction of the rating paper compares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from training.rating.network import FILTERS
from training.rating.recipe import RatingPlan, shipped_plan

PAPER_EPOCHS: Final = 300


@dataclass(frozen=True)
class Configuration:
    """One way of training that is evaluated by cross-validation.

    Attributes
    ----------
    name : str
        Used in file names.
    title : str
        Used in the report.
    plan : RatingPlan
        A random forest uses only its enhancement.
    repetitions : int
        Repetitions with different folds and initial weights.
    forest : {"", "places", "all-places"}
        Features, if this is a random forest.
    """

    name: str
    title: str
    plan: RatingPlan
    repetitions: int = 1
    forest: str = ""


def configurations(epochs: int, repetitions: int) -> tuple[Configuration, ...]:
    """Return all configurations.

    Both losses of the paper, both Haar transforms and none, the recipe of the shipped weights, and
    two random forests.
    """
    paper = RatingPlan(epochs=epochs)
    longer = Configuration("published", "the same, 300 epochs", replace(paper, epochs=PAPER_EPOCHS))
    return (
        Configuration("stationary", "stationary Haar, cross-entropy", paper, repetitions),
        Configuration(
            "none", "no Haar, cross-entropy", replace(paper, enhancement="none"), repetitions
        ),
        Configuration(
            "block-group",
            "block-group Haar, cross-entropy",
            replace(paper, enhancement="block-group"),
            repetitions,
        ),
        Configuration("mse", "stationary Haar, mean squared error", replace(paper, loss="mse")),
        Configuration(
            "extended",
            "recipe of the shipped weights, same network",
            replace(shipped_plan(epochs), filters=FILTERS),
        ),
        *([longer] if epochs < PAPER_EPOCHS else []),
        Configuration(
            "forest",
            "random forest, Haar-like features at places",
            paper,
            repetitions,
            "places",
        ),
        Configuration(
            "forest-all",
            "random forest, Haar-like features over all places",
            paper,
            repetitions,
            "all-places",
        ),
    )
