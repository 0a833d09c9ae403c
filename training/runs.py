"""Training runs that resume from their checkpoint and keep the best weights."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from core.errors import ConfigurationError
from training import checkpoints
from training.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

_LOG: Final = logging.getLogger(__name__)

Weights = dict[str, Any]


class Trainer(Protocol):
    """A network in training, whose state can be saved and restored."""

    def state(self) -> dict[str, Any]:
        """Return all that is needed to resume."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from a saved state."""


class TrainingRun:
    """One run: its folder with checkpoint and log, and the best weights so far.

    If the folder has a checkpoint, the trainer is restored from it.

    Parameters
    ----------
    folder : Path
    trainer : Trainer
    plan : dict
        Fields of a `RatingPlan` or `SeverityPlan`.
    cohort : dict
        Result of `describe_cohort`.

    Attributes
    ----------
    resumed : dict, optional
        The checkpoint that the run was resumed from.
    best_weights : dict, optional
        Weights of the best epoch so far.

    Raises
    ------
    ConfigurationError
        The run was started with another plan or with another cohort of a site.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        plan: dict[str, Any],
        cohort: dict[str, Any],
    ) -> None:
        self._folder, self._trainer, self._cohort = folder, trainer, cohort
        self._plan, self._epochs = plan, plan["epochs"]
        self._first, self._best = 0, -1.0
        self.best_weights: Weights | None = None
        self.resumed = checkpoints.load(folder)
        if self.resumed is not None:
            _check_same(self.resumed, cohort, self._plan)
            trainer.load_state(self.resumed)
            self._first, self._best = self.resumed["epoch"], self.resumed["best"]
            self.best_weights = self.resumed["best_weights"]

    def epochs(self) -> Iterator[int]:
        """Iterate over the epochs still to be trained, with a progress bar."""
        remaining = range(self._first, self._epochs)
        return track(remaining, "training", total=self._epochs, done=self._first)

    def finish_epoch(
        self,
        epoch: int,
        score: float | None,
        weights: Callable[[], Weights],
        scores: dict[str, float],
        **stored: Any,
    ) -> None:
        """Log an epoch and write the checkpoint.

        Parameters
        ----------
        epoch : int
        score : float, optional
            Validation score that decides which epoch is the best; without it, the last one is.
        weights : callable
            Returns the weights to keep if this epoch is the best so far.
        scores : dict of float
            Values for the log.
        **stored
            Further content of the checkpoint.
        """
        if score is None or score >= self._best:
            self._best = self._best if score is None else score
            self.best_weights = weights()
        self._log(epoch, scores)
        state = {
            **self._trainer.state(),
            "epoch": epoch + 1,
            "best": self._best,
            "best_weights": self.best_weights,
            "plan": self._plan,
            "cohort": self._cohort,
        }
        checkpoints.save(self._folder, state | stored)

    def _log(self, epoch: int, scores: dict[str, float]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        rounded = {name: round(value, 4) for name, value in scores.items()}
        with (self._folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"epoch": epoch, **rounded}) + "\n")
        _LOG.info("epoch %d: %s", epoch, ", ".join(f"{k} {v}" for k, v in rounded.items()))


def copy_weights(net: nn.Module) -> Weights:
    """Return a copy of a network's weights that further training does not change."""
    return {name: value.clone() for name, value in net.state_dict().items()}


def _check_same(state: dict[str, Any], cohort: dict[str, Any], plan: dict[str, Any]) -> None:
    """Check that a run is resumed with the plan and the subjects that it was started with.

    Other subjects would change the split, so that validation subjects could have been trained on.
    The number of epochs may change.
    """
    stored = state["plan"]
    changed = [name for name in plan if name != "epochs" and plan[name] != stored.get(name)]
    if changed:
        raise ConfigurationError(
            f"The run was started with a different {', '.join(changed)}.", "Name a new --run."
        )
    before = state["cohort"]
    if "site" in (before["kind"], cohort["kind"]) and before != cohort:
        raise ConfigurationError("The run was started with another cohort.", "Name a new --run.")
