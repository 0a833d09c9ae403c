"""Training recipe of the severity network: the severity paper's, with optional additions.

Severity paper, Methods: Adam at 0.001, binary cross-entropy, batches of 20, a tenth of the learning
rate after 10 epochs without improvement of the validation loss, best validation AUC kept. With a
few hundred synthetic scans this recipe does not get beyond chance, because the class depends on a
dozen dots of one to three pixels in four million voxels. `SeverityPlan` lists the additions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from training.cohorts.examples import SEVERE_COUNT, Example, volume_as_input
from training.severity.network import ResidualUnit, SeverityNet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_BORDERLINE: Final = range(5, 16)
"""Counts left out at the start of the first phase (`SeverityPlan.easy_share`)."""
_PLATEAU_EPOCHS: Final = 10
_SHIFT_PX: Final = 6
_WARM_UP_EPOCHS: Final = 3


@dataclass(frozen=True)
class SeverityPlan:
    """Hyperparameters of one training phase.

    Attributes
    ----------
    layers, width : int
        Size of the network.
    dropout : float
        Dropout before the last layer.
    window : int
        Central rows and columns used; 512 is the whole volume. A first phase on a smaller window
        is faster; the network accepts any size because of its global averaging.
    epochs, batch, micro_batch : int
        Gradients are accumulated over the micro-batches of a batch.
    rate : float
        Highest learning rate.
    schedule : {"cosine", "plateau"}
        Warm-up and cosine decay, or the paper's steps.
    easy_share : float
        Share of the epochs without borderline counts, if this is the first phase (paper: 0).
    count_weight : float
        Weight of the auxiliary target log(1 + count) (paper: 0).
    augmented : bool
        Mirror and shift the volumes (not in the paper).
    identity_start : bool
        Initialise every residual unit as the identity (not in the paper).
    """

    layers: int = 152
    width: int = 8
    dropout: float = 0.4
    window: int = 512
    epochs: int = 30
    batch: int = 20
    micro_batch: int = 5
    rate: float = 1e-3
    schedule: Literal["cosine", "plateau"] = "cosine"
    easy_share: float = 0.2
    count_weight: float = 1.0
    augmented: bool = True
    identity_start: bool = True


PAPER_RECIPE: Final[dict[str, Any]] = {
    "schedule": "plateau",
    "easy_share": 0.0,
    "count_weight": 0.0,
    "augmented": False,
    "identity_start": False,
}
"""Fields of a plan that follows the paper's recipe exactly."""


class Validation(NamedTuple):
    """Scores of a network on subjects that it is not trained on."""

    auc: float
    accuracy: float
    loss: float


class SeverityTrainer:
    """Trains a network epoch by epoch.

    Parameters
    ----------
    plan : SeverityPlan
    seed : int
        Determines initial weights, order and augmentation.
    """

    def __init__(self, plan: SeverityPlan, seed: int = 0) -> None:
        self._plan, self._seed = plan, seed
        torch.manual_seed(seed)
        self.net = SeverityNet(plan.layers, plan.width, plan.dropout)
        if not plan.identity_start:
            _reset_unit_scales(self.net)
        self.net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._optimiser = torch.optim.Adam(self.net.parameters(), plan.rate)
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimiser, factor=0.1, patience=_PLATEAU_EPOCHS
        )

    def state(self) -> dict[str, Any]:
        """Return all that is needed to resume."""
        return {
            "net": self.net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "plateau": self._plateau.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from a saved state."""
        self.net.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._plateau.load_state_dict(state["plateau"])

    def epoch(self, number: int, examples: Sequence[Example], *, first_phase: bool = True) -> float:
        """Train on all examples once; returns the mean loss."""
        plan = self._plan
        rng = np.random.default_rng([self._seed, number])
        torch.manual_seed(1_000_003 * self._seed + number)  # dropout
        if plan.schedule == "cosine":
            for group in self._optimiser.param_groups:
                group["lr"] = plan.rate * _cosine(number, plan.epochs)
        if first_phase and number < plan.easy_share * plan.epochs:
            examples = [e for e in examples if e.severity_count not in _BORDERLINE]
        self.net.train()
        losses = []
        order = rng.permutation(len(examples))
        for start in range(0, len(order), plan.batch):
            batch = order[start : start + plan.batch]
            self._optimiser.zero_grad()
            for part in range(0, len(batch), plan.micro_batch):
                chosen = [examples[i] for i in batch[part : part + plan.micro_batch]]
                loss = self._loss(chosen, rng)
                (loss * len(chosen) / len(batch)).backward()
                losses.append(loss.item())
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
            self._optimiser.step()
        return float(np.mean(losses))

    def report_validation(self, loss: float) -> None:
        """Pass the validation loss to the paper's learning-rate schedule."""
        if self._plan.schedule == "plateau":
            self._plateau.step(loss)

    def _loss(self, examples: Sequence[Example], rng: np.random.Generator) -> Tensor:
        plan = self._plan
        volumes = [e.volume for e in examples]
        if plan.augmented:
            volumes = [augment(volume, rng) for volume in volumes]
        x = torch.from_numpy(volume_as_input(np.stack(volumes)))
        logit, log_count = self.net.heads(x.contiguous(memory_format=torch.channels_last_3d))
        counts = torch.tensor([e.severity_count for e in examples], dtype=torch.float32)
        severe = (counts >= SEVERE_COUNT).float()
        loss = functional.binary_cross_entropy_with_logits(logit, severe)
        if plan.count_weight:
            error = functional.smooth_l1_loss(log_count, torch.log1p(counts))
            loss = loss + plan.count_weight * error
        return loss


def augment(volume: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mirror left and right at random; shift by a few pixels, like a registration error."""
    if rng.random() < 0.5:
        volume = volume[:, :, ::-1]
    rows, columns = rng.integers(-_SHIFT_PX, _SHIFT_PX + 1, 2)
    return np.roll(volume, (int(rows), int(columns)), axis=(1, 2))


@torch.no_grad()
def predict(net: SeverityNet, examples: Sequence[Example]) -> NDArray[np.float64]:
    """Predict the probability that each example is moderate-to-severe."""
    net.eval()
    probabilities = []
    for example in examples:
        x = torch.from_numpy(volume_as_input(example.volume[None]))
        probability, _ = net(x.contiguous(memory_format=torch.channels_last_3d))
        probabilities.append(float(probability))
    return np.array(probabilities)


def validate(net: SeverityNet, examples: Sequence[Example]) -> Validation:
    """Score a network; the AUC is 0.5 if there is only one class."""
    severe = np.array([e.severity_count >= SEVERE_COUNT for e in examples])
    probability = predict(net, examples)
    of_true_class = np.clip(np.where(severe, probability, 1 - probability), 1e-7, 1)
    mixed = severe.any() and not severe.all()
    return Validation(
        auc=float(roc_auc_score(severe, probability)) if mixed else 0.5,
        accuracy=float(np.mean((probability >= 0.5) == severe)),
        loss=float(-np.log(of_true_class).mean()),
    )


def _reset_unit_scales(net: SeverityNet) -> None:
    """Initialise the last scale of every residual unit to one, PyTorch's default."""
    for module in net.modules():
        if isinstance(module, ResidualUnit):
            last = module.body[-1]
            assert isinstance(last, nn.BatchNorm3d)  # noqa: S101 - narrows the type
            nn.init.ones_(last.weight)


def _cosine(epoch: int, epochs: int) -> float:
    """Warm-up over the first epochs, then a cosine to zero."""
    return min(1.0, (epoch + 1) / _WARM_UP_EPOCHS) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
