"""Network designs and training plans of the severity reproduction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from training.severity.recipe import PAPER_RECIPE, SeverityPlan

DEPTH: Final = 152
"""Layers of the paper's network."""
DEPTHS: Final = (50, 101, 152)
DROPOUTS: Final = (0.2, 0.4, 0.6)
_PAPER_DROPOUT: Final = 0.4
WHOLE: Final = 512
"""Rows and columns of a whole volume."""


@dataclass(frozen=True)
class Budget:
    """Size and duration of the trainings.

    Attributes
    ----------
    width : int
        Filters of the stem (paper: 64).
    epochs : int
        Epochs on the central `window` of the volumes.
    whole_epochs : int
        Epochs on whole volumes after that, and epochs of the paper's recipe.
    window : int
    """

    width: int = 8
    epochs: int = 20
    whole_epochs: int = 4
    window: int = 224

    def central_phase(self) -> SeverityPlan:
        """Return the plan of the first phase, which is also that of the cross-validation."""
        return SeverityPlan(
            layers=DEPTH,
            width=self.width,
            window=self.window,
            epochs=self.epochs,
            batch=5,
        )

    def whole_phase(self) -> SeverityPlan:
        """Return the plan of the second phase."""
        return replace(
            self.central_phase(),
            window=WHOLE,
            epochs=self.whole_epochs,
            rate=5e-4,
            easy_share=0.0,
        )

    def paper_recipe(self) -> SeverityPlan:
        """Return the plan of the paper's exact recipe, at this width."""
        return SeverityPlan(
            layers=DEPTH, width=self.width, window=WHOLE, epochs=self.whole_epochs, **PAPER_RECIPE
        )


def designs(budget: Budget) -> dict[str, SeverityPlan]:
    """Return all depths at the paper's dropout and all dropouts at the paper's depth, by title."""
    plan = budget.central_phase()
    depths = {
        f"{layers} layers, dropout {_PAPER_DROPOUT}": replace(plan, layers=layers)
        for layers in DEPTHS
    }
    dropouts = {
        f"{plan.layers} layers, dropout {dropout}": replace(plan, dropout=dropout)
        for dropout in DROPOUTS
    }
    return depths | dropouts
