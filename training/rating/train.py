"""Train the rating model on a cohort, with checkpoints from which a run goes on."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training import checkpoints
from training.cohorts.examples import describe_cohort, is_validation, load_cohort
from training.progress import track
from training.rating.calibration import fit_temperature
from training.rating.network import RatingNet
from training.rating.recipe import RatingData, RatingPlan, RatingTrainer, predict

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def train_rating(cohort: Path, run: Path, plan: RatingPlan, *, threads: int = 1) -> RatingNet:
    """Train on a stored cohort; goes on from the run's checkpoint if there is one.

    The weights kept are those of the epoch with the best accuracy on validation subjects (every
    eleventh), which are never trained on; they also give the temperature.

    Parameters
    ----------
    cohort, run : Path
        Folder of the cohort; folder of checkpoint and log.
    plan : RatingPlan
    threads : int

    Returns
    -------
    RatingNet
        With the best weights.

    Raises
    ------
    ConfigurationError
        The run began with another plan, or other subjects of a site.
    """
    torch.set_num_threads(threads)
    description = describe_cohort(cohort)
    examples = load_cohort(cohort, volumes=False)
    held_back = is_validation(examples)
    kept = [e for e, held in zip(examples, held_back, strict=True) if not held]
    chosen = [e for e, held in zip(examples, held_back, strict=True) if held]
    training = RatingData.for_training(kept, plan)
    validation = RatingData.of(chosen, plan.enhancement)
    trainer, state = RatingTrainer(plan), checkpoints.load(run)
    first, best = 0, -1.0
    best_weights: dict[str, Any] = trainer.trained.state_dict()
    if state is not None:
        checkpoints.check_same(state, description, asdict(plan))
        trainer.load_state(state)
        first, best, best_weights = state["epoch"], state["best"], state["best_weights"]
    for epoch in track(range(first, plan.epochs), "training", total=plan.epochs, done=first):
        loss = trainer.epoch(epoch, training)
        figures = validate(trainer.trained, validation)
        # Without subjects to validate on, the last epoch is kept.
        if figures.get("validation_accuracy", best) >= best:
            best = figures.get("validation_accuracy", best)
            best_weights = _calibrated(trainer.trained, validation)
        checkpoints.record(run, epoch, loss=loss, **figures)
        checkpoints.save(
            run,
            {
                **trainer.state(),
                "epoch": epoch + 1,
                "best": best,
                "best_weights": best_weights,
                "plan": asdict(plan),
                "cohort": description,
            },
        )
    net = RatingNet(plan.filters)
    net.load_state_dict(best_weights)
    return net.eval()


def validate(net: RatingNet, data: RatingData) -> dict[str, float]:
    """Accuracy of images and of subjects (highest of six); empty without subjects."""
    if not len(data.ratings):
        return {}
    predicted = predict(net, data.crops).argmax(axis=1)
    truth = data.ratings.numpy()
    subject, subject_truth = (_highest(ratings) for ratings in (predicted, truth))
    return {
        "validation_accuracy": float(np.mean(predicted == truth)),
        "validation_subject_accuracy": float(np.mean(subject == subject_truth)),
    }


def _highest(ratings: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(ratings.reshape(-1, 6).max(axis=1))


def _calibrated(net: RatingNet, data: RatingData) -> dict[str, Any]:
    """Copy the weights, with the temperature that the validation subjects give."""
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    if len(data.ratings):
        probabilities = predict(net, data.crops)
        weights["temperature"] *= fit_temperature(probabilities, data.ratings.numpy())
    return weights
