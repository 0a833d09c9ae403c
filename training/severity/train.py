"""Training of the severity model on a cohort; resumes from its checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from training import checkpoints
from training.cohorts.folder import (
    describe_cohort,
    load_cohort,
    require_severity_labels,
    split_validation,
)
from training.runs import TrainingRun, copy_weights
from training.severity.recipe import SeverityPlan, SeverityTrainer, validate

if TYPE_CHECKING:
    from pathlib import Path

    from training.severity.network import SeverityNet


def train_severity(
    cohort: Path,
    run: Path,
    plan: SeverityPlan,
    *,
    start_from: Path | None = None,
    threads: int = 1,
) -> SeverityNet:
    """Train on a stored cohort; resumes if the run has a checkpoint.

    The weights of the epoch with the best AUC on the validation subjects are kept (see
    `split_validation`).

    Parameters
    ----------
    cohort, run : Path
        Folder of the cohort; folder for checkpoint and log.
    plan : SeverityPlan
    start_from : Path, optional
        Run of the previous phase, whose best weights are the initial ones.
    threads : int

    Returns
    -------
    SeverityNet
        With the best weights.

    Raises
    ------
    ConfigurationError
        The run was started with another plan or with another cohort of a site; a subject has no
        severity count; `start_from` has no checkpoint.
    """
    torch.set_num_threads(threads)
    require_severity_labels(cohort)
    training, validation = split_validation(load_cohort(cohort, window=plan.window))
    trainer = SeverityTrainer(plan)
    progress = TrainingRun(run, trainer, asdict(plan), describe_cohort(cohort))
    earlier: list[dict[str, Any]] = []
    if progress.resumed is not None:
        earlier = progress.resumed["phases"][:-1]
    elif start_from is not None:
        previous = checkpoints.require(start_from)
        trainer.net.load_state_dict(previous["best_weights"])
        earlier = previous["phases"]
    phases = [*earlier, asdict(plan) | {"scans": len(training) + len(validation)}]
    for epoch in progress.epochs():
        loss = trainer.epoch(epoch, training, first_phase=not earlier)
        found = validate(trainer.net, validation)
        trainer.report_validation(found.loss)
        progress.finish_epoch(
            epoch,
            found.auc,
            lambda: copy_weights(trainer.net),
            {
                "loss": loss,
                "validation_auc": found.auc,
                "validation_accuracy": found.accuracy,
            },
            phases=phases,
        )
    if progress.best_weights is not None:
        trainer.net.load_state_dict(progress.best_weights)
    return trainer.net.eval()
