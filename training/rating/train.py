"""Training of the rating model on a cohort; resumes from its checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.cohorts.folder import describe_cohort, load_cohort, split_validation
from training.rating.calibration import fit_temperature
from training.rating.network import RatingNet
from training.rating.recipe import RatingData, RatingPlan, RatingTrainer, predict
from training.runs import TrainingRun, Weights, copy_weights

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def train_rating(cohort: Path, run: Path, plan: RatingPlan, *, threads: int = 1) -> RatingNet:
    """Train on a stored cohort; resumes if the run has a checkpoint.

    The weights of the epoch with the best accuracy on the validation subjects are kept (see
    `split_validation`). The same subjects determine the temperature. Without validation subjects
    the last epoch is kept, uncalibrated.

    Parameters
    ----------
    cohort, run : Path
        Folder of the cohort; folder for checkpoint and log.
    plan : RatingPlan
    threads : int

    Returns
    -------
    RatingNet
        With the best weights.

    Raises
    ------
    ConfigurationError
        The run was started with another plan or with another cohort of a site.
    """
    torch.set_num_threads(threads)
    kept, held_back = split_validation(load_cohort(cohort, volumes=False))
    training = RatingData.for_training(kept, plan)
    validation = RatingData.of(held_back, plan.enhancement)
    trainer = RatingTrainer(plan)
    progress = TrainingRun(run, trainer, asdict(plan), describe_cohort(cohort))
    for epoch in progress.epochs():
        loss = trainer.epoch(epoch, training)
        scores = validate(trainer.trained, validation)
        progress.finish_epoch(
            epoch,
            scores.get("validation_accuracy"),
            lambda: _calibrated(trainer.trained, validation),
            {"loss": loss, **scores},
        )
    net = RatingNet(plan.filters)
    net.load_state_dict(progress.best_weights or trainer.trained.state_dict())
    return net.eval()


def validate(net: RatingNet, data: RatingData) -> dict[str, float]:
    """Accuracy for images and for subjects (highest of six); empty without subjects."""
    if not len(data.ratings):
        return {}
    predicted = predict(net, data.crops).argmax(axis=1)
    expected = data.ratings.numpy()
    subject, expected_subject = _highest(predicted), _highest(expected)
    return {
        "validation_accuracy": float(np.mean(predicted == expected)),
        "validation_subject_accuracy": float(np.mean(subject == expected_subject)),
    }


def _highest(ratings: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(ratings.reshape(-1, 6).max(axis=1))


def _calibrated(net: RatingNet, data: RatingData) -> Weights:
    """Copy the weights, with the temperature fitted on the validation subjects."""
    weights = copy_weights(net)
    if len(data.ratings):
        weights["temperature"] *= fit_temperature(predict(net, data.crops), data.ratings.numpy())
    return weights
