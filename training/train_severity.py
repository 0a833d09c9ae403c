"""Train the severity model.

Severity paper, Methods: Adam, binary cross-entropy, batches of 20, best validation AUC kept. By
itself that recipe stays at chance on a few hundred phantoms: a dozen dots of one to three pixels
decide over a picture of four million. What is added: the logarithm of the EPVS count as an
auxiliary target, clear cases before borderline ones, warm-up and cosine decay of the learning
rate, and a first phase on the central part of the volume (`SeverityPlan.window`) from which a
second phase at full size starts (the network ends in global averaging and takes either).
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from training import checkpoints
from training.datasets import (
    SEVERE_COUNT,
    Example,
    describe_cohort,
    is_validation,
    load_cohort,
    require_severity_labels,
    volume_as_input,
)
from training.networks.severity import SeverityNet

if TYPE_CHECKING:
    from pathlib import Path

_LOG: Final = logging.getLogger(__name__)
_BORDERLINE: Final = range(5, 16)
"""Counts left out of the first `SeverityPlan.easy` share of the first phase's epochs."""


@dataclass(frozen=True)
class SeverityPlan:
    """One training phase.

    Attributes
    ----------
    layers, width : int
        Of the network.
    window : int
        Central rows and columns used; 512 is the whole volume.
    epochs, batch, micro_batch : int
        Gradients of micro-batches are added up to a batch.
    rate : float
        Highest learning rate.
    easy : float
        Share of the epochs without borderline counts, if this is the first phase.
    count_weight : float
        Weight of the auxiliary target.
    bfloat16 : bool
        Convolve in bfloat16: about 1.6 times as fast on CPUs that have it. oneDNN's weight
        gradient is then not finite in about one step in forty, which is skipped.
    """

    layers: int = 152
    width: int = 8
    window: int = 512
    epochs: int = 30
    batch: int = 20
    micro_batch: int = 5
    rate: float = 1e-3
    easy: float = 0.2
    count_weight: float = 1.0
    bfloat16: bool = True


def train_severity(
    cohort: Path,
    run: Path,
    plan: SeverityPlan,
    *,
    start_from: Path | None = None,
    threads: int = 1,
) -> SeverityNet:
    """Train on a stored cohort; goes on from the run's checkpoint if there is one.

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
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    require_severity_labels(cohort)
    description = describe_cohort(cohort)
    examples = load_cohort(cohort, window=plan.window)
    held_back = is_validation(examples)
    training = [e for e, held in zip(examples, held_back, strict=True) if not held]
    validation = [e for e, held in zip(examples, held_back, strict=True) if held]
    net = SeverityNet(plan.layers, plan.width)
    net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(net.parameters(), plan.rate)
    first, best = 0, -1.0
    earlier: list[dict[str, Any]] = []
    state = checkpoints.load(run)
    if state is not None:
        checkpoints.check_same(state, description, asdict(plan))
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        first, best, earlier = state["epoch"], state["best"], state["phases"][:-1]
    elif start_from is not None and (before := checkpoints.load(start_from)) is not None:
        net.load_state_dict(before["best_weights"])
        earlier = before["phases"]
    best_weights = state["best_weights"] if state is not None else net.state_dict()
    for epoch in range(first, plan.epochs):
        rng = np.random.default_rng(epoch)
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * _schedule(epoch, plan.epochs)
        easy = not earlier and epoch < plan.easy * plan.epochs
        chosen = [e for e in training if not (easy and e.severity_count in _BORDERLINE)]
        loss = _epoch(net, optimiser, chosen, plan, rng)
        auc, accuracy = validate(net, validation)
        if auc >= best:
            best = auc
            best_weights = {k: v.clone() for k, v in net.state_dict().items()}
        checkpoints.record(
            run, epoch, loss=loss, validation_auc=auc, validation_accuracy=accuracy, n=len(chosen)
        )
        checkpoints.save(
            run,
            {
                "net": net.state_dict(),
                "optimiser": optimiser.state_dict(),
                "epoch": epoch + 1,
                "best": best,
                "best_weights": best_weights,
                "plan": asdict(plan),
                "phases": [*earlier, asdict(plan) | {"scans": len(examples)}],
                "cohort": description,
            },
        )
    net.load_state_dict(best_weights)
    return net.eval()


def _epoch(
    net: SeverityNet,
    optimiser: torch.optim.Optimizer,
    examples: list[Example],
    plan: SeverityPlan,
    rng: np.random.Generator,
) -> float:
    """One pass over the examples; returns the mean loss."""
    net.train()
    order = rng.permutation(len(examples))
    losses = []
    for start in range(0, len(order), plan.batch):
        batch = order[start : start + plan.batch]
        statistics = {name: value.clone() for name, value in net.named_buffers()}
        optimiser.zero_grad()
        for part in range(0, len(batch), plan.micro_batch):
            chosen = [examples[i] for i in batch[part : part + plan.micro_batch]]
            loss = _loss(net, chosen, plan, rng)
            (loss * len(chosen) / len(batch)).backward()
            losses.append(loss.item())
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        if torch.isfinite(norm):
            optimiser.step()
        else:  # see SeverityPlan.bfloat16
            net.load_state_dict(statistics, strict=False)
            _LOG.warning("skipped a step whose gradient is not finite")
    return float(np.nanmean(losses))


def _loss(
    net: SeverityNet, examples: list[Example], plan: SeverityPlan, rng: np.random.Generator
) -> Tensor:
    """Cross-entropy of the severity and smooth L1 of the log count."""
    volumes = np.stack([_augment(e.volume, rng) for e in examples])
    counts = torch.tensor([e.severity_count for e in examples], dtype=torch.float32)
    x = torch.from_numpy(volume_as_input(volumes)).contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16, enabled=plan.bfloat16):
        logit, log_count = net.heads(x)
    severe = (counts >= SEVERE_COUNT).float()
    return functional.binary_cross_entropy_with_logits(
        logit.float(), severe
    ) + plan.count_weight * functional.smooth_l1_loss(log_count.float(), torch.log1p(counts))


def _augment(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror left and right; shift by a few pixels, as registration errors do."""
    if rng.random() < 0.5:
        volume = volume[:, :, ::-1]
    shift = rng.integers(-6, 7, 2)
    return np.roll(volume, tuple(int(s) for s in shift), axis=(1, 2))


@torch.no_grad()
def validate(net: SeverityNet, examples: list[Example]) -> tuple[float, float]:
    """Area under the ROC curve and accuracy."""
    net.eval()
    severe = np.array([e.severity_count >= SEVERE_COUNT for e in examples])
    if severe.all() or not severe.any():
        return 0.5, float(severe.mean())
    answers = []
    for example in examples:
        x = torch.from_numpy(volume_as_input(example.volume[None]))
        probability, _ = net(x.contiguous(memory_format=torch.channels_last_3d))
        answers.append(float(probability))
    accuracy = float(np.mean((np.array(answers) >= 0.5) == severe))
    return float(roc_auc_score(severe, answers)), accuracy


def _schedule(epoch: int, epochs: int) -> float:
    """Warm-up over two epochs, then a cosine to zero."""
    return min(1.0, (epoch + 1) / 3) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
