"""Train the severity model on a cohort, with checkpoints from which a run goes on."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from training import checkpoints
from training.cohorts.examples import (
    describe_cohort,
    is_validation,
    load_cohort,
    require_severity_labels,
)
from training.progress import track
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
    """Train on a stored cohort; goes on from the run's checkpoint if there is one.

    The weights kept are those of the epoch with the best AUC on validation subjects (every
    eleventh), which are never trained on.

    Parameters
    ----------
    cohort, run : Path
        Folder of the cohort; folder of checkpoint and log.
    plan : SeverityPlan
    start_from : Path, optional
        Run whose best weights are the start (the phase before).
    threads : int

    Returns
    -------
    SeverityNet
        With the best weights.

    Raises
    ------
    ConfigurationError
        The run began with another plan, or other subjects of a site; a subject of the cohort has
        no severity; `start_from` holds no checkpoint.
    """
    torch.set_num_threads(threads)
    require_severity_labels(cohort)
    description = describe_cohort(cohort)
    examples = load_cohort(cohort, window=plan.window)
    held_back = is_validation(examples)
    training = [e for e, held in zip(examples, held_back, strict=True) if not held]
    validation = [e for e, held in zip(examples, held_back, strict=True) if held]
    trainer, state = SeverityTrainer(plan), checkpoints.load(run)
    first, best = 0, -1.0
    earlier: list[dict[str, Any]] = []
    if state is not None:
        checkpoints.check_same(state, description, asdict(plan))
        trainer.load_state(state)
        first, best, earlier = state["epoch"], state["best"], state["phases"][:-1]
    elif start_from is not None:
        before = checkpoints.require(start_from)
        trainer.net.load_state_dict(before["best_weights"])
        earlier = before["phases"]
    best_weights = _copy(trainer.net) if state is None else state["best_weights"]
    for epoch in track(range(first, plan.epochs), "training", total=plan.epochs, done=first):
        loss = trainer.epoch(epoch, training, first_phase=not earlier)
        found = validate(trainer.net, validation)
        trainer.note_validation(found.loss)
        if found.auc >= best:
            best, best_weights = found.auc, _copy(trainer.net)
        checkpoints.record(
            run, epoch, loss=loss, validation_auc=found.auc, validation_accuracy=found.accuracy
        )
        checkpoints.save(
            run,
            {
                **trainer.state(),
                "epoch": epoch + 1,
                "best": best,
                "best_weights": best_weights,
                "plan": asdict(plan),
                "phases": [*earlier, asdict(plan) | {"scans": len(examples)}],
                "cohort": description,
            },
        )
    trainer.net.load_state_dict(best_weights)
    return trainer.net.eval()


def _copy(net: SeverityNet) -> dict[str, Any]:
    return {name: value.clone() for name, value in net.state_dict().items()}
