"""Training recipe of the rating network: the rating paper's, with optional additions.

Rating paper, section 2.4.2: Adam at 0.001, cross-entropy or mean squared error, 300 epochs,
rotation by up to 30° and flips, image by image. `RatingPlan` lists the additions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.cohorts.examples import crops_as_input, rating_of
from training.rating.network import FILTERS, INPUT_SHAPE, RATINGS, WIDE_FILTERS, RatingNet
from training.synthetic.acquisition import Imperfections, through_k_space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.cohorts.examples import Example

_ROTATION_DEG: Final = 30.0
_PIXEL_MM: Final = 0.465
_MOTION_SHARE: Final = 0.6
_MOTION_MM: Final = (0.1, 0.5)
_SAMPLED: Final = (0.65, 1.0)
_NOISE: Final = (0.003, 0.03)
"""Noise added to degraded copies, relative to the scan's maximum (about 1.5 times CSF); same
range as in the training scans."""

Loss = Literal["cross-entropy", "mse"]


@dataclass(frozen=True)
class RatingPlan:
    """Hyperparameters of one training.

    Attributes
    ----------
    epochs, batch : int
    rate : float
        Initial learning rate of Adam; it decays to zero along a cosine (not in the paper).
    loss : {"cross-entropy", "mse"}
        Both are the paper's; the squared error is computed on the probabilities.
    enhancement : {"stationary", "block-group", "none"}
        Haar enhancement of the crops.
    count_weight : float
        Weight of the auxiliary target log(1 + count); 0 in the paper.
    averaging : float
        Decay per step of a running average of the weights; 0, as in the paper, keeps the last
        weights.
    balanced : bool
        Sample all ratings equally often (not in the paper).
    degraded_copies : int
        Copies of each training image with the motion and noise of a poorer scan (not in the
        paper): these cost the most accuracy on scans of poorer quality than the training scans.
    filters : tuple of int
        Filters of the convolutions.
    """

    epochs: int = 300
    batch: int = 32
    rate: float = 1e-3
    loss: Loss = "cross-entropy"
    enhancement: str = "stationary"
    count_weight: float = 0.0
    averaging: float = 0.0
    balanced: bool = False
    degraded_copies: int = 0
    filters: tuple[int, ...] = FILTERS


def shipped_plan(epochs: int) -> RatingPlan:
    """Plan of the shipped weights: the paper's recipe with all additions."""
    return RatingPlan(
        epochs=epochs,
        count_weight=1.0,
        averaging=0.99,
        balanced=True,
        degraded_copies=2,
        filters=WIDE_FILTERS,
    )


@dataclass(frozen=True)
class RatingData:
    """Images with their labels: crops (n, 1, 112, 86), counts (n,) and ratings (n,)."""

    crops: Tensor
    counts: Tensor
    ratings: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example], enhancement: str) -> RatingData:
        """Enhance the six images of each example and concatenate them."""
        if not examples:  # the cohort is too small for validation subjects
            return cls(torch.empty(0, *INPUT_SHAPE), torch.empty(0), torch.empty(0).long())
        crops = crops_as_input(np.stack([e.crops for e in examples]), enhancement)
        counts = np.concatenate([e.counts for e in examples])
        return cls(
            torch.from_numpy(crops).flatten(0, 1),
            torch.from_numpy(counts).float(),
            torch.from_numpy(rating_of(counts)),
        )

    @classmethod
    def for_training(cls, examples: Sequence[Example], plan: RatingPlan) -> RatingData:
        """Return the examples together with the degraded copies that the plan asks for."""
        copies = [examples]
        for number in range(plan.degraded_copies):
            rng = np.random.default_rng(number)
            copies.append([replace(e, crops=degrade_crops(rng, e.crops)) for e in examples])
        return cls.of([example for copy in copies for example in copy], plan.enhancement)

    def of_subjects(self, chosen: NDArray[np.bool_]) -> RatingData:
        """Select the images of the chosen subjects, six each."""
        images = torch.from_numpy(np.repeat(chosen, 6))
        return RatingData(self.crops[images], self.counts[images], self.ratings[images])


class RatingTrainer:
    """Trains a network epoch by epoch.

    Parameters
    ----------
    plan : RatingPlan
    seed : int
        Determines initial weights, order and augmentation.
    """

    def __init__(self, plan: RatingPlan, seed: int = 0) -> None:
        self._plan, self._seed = plan, seed
        torch.manual_seed(seed)
        self.net = RatingNet(plan.filters)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimiser = torch.optim.Adam(self.net.parameters(), plan.rate)
        self._average = AveragedModel(
            self.net, multi_avg_fn=get_ema_multi_avg_fn(plan.averaging), use_buffers=True
        )

    @property
    def trained(self) -> RatingNet:
        """The resulting network: the running average, or the last weights."""
        averaged: RatingNet = self._average.module  # type: ignore[assignment]
        return averaged if self._plan.averaging else self.net

    def state(self) -> dict[str, Any]:
        """Return all that is needed to resume."""
        return {
            "net": self.net.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from a saved state."""
        self.net.load_state_dict(state["net"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])

    def epoch(self, number: int, data: RatingData) -> float:
        """Train on all images once; returns the mean loss."""
        plan = self._plan
        generator = torch.Generator().manual_seed(1_000_003 * self._seed + number)
        torch.manual_seed(1_000_003 * self._seed + number)  # dropout
        for group in self._optimiser.param_groups:
            group["lr"] = plan.rate * 0.5 * (1 + math.cos(math.pi * number / plan.epochs))
        self.net.train()
        losses = []
        for chosen in self._order(data, generator).split(plan.batch):
            loss = self._loss(augment(data.crops[chosen], generator), chosen, data)
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()
            self._average.update_parameters(self.net)
            losses.append(loss.item())
        return float(np.mean(losses))

    def _order(self, data: RatingData, generator: torch.Generator) -> Tensor:
        if not self._plan.balanced:
            return torch.randperm(len(data.ratings), generator=generator)
        frequency = torch.bincount(data.ratings, minlength=RATINGS).clamp(min=1)
        weights = 1.0 / frequency[data.ratings].double()
        return torch.multinomial(weights, len(weights), replacement=True, generator=generator)

    def _loss(self, crops: Tensor, chosen: Tensor, data: RatingData) -> Tensor:
        logits, log_count = self.net.heads(crops.contiguous(memory_format=torch.channels_last))
        ratings = data.ratings[chosen]
        if self._plan.loss == "mse":
            expected = functional.one_hot(ratings, RATINGS).float()
            loss = functional.mse_loss(torch.softmax(logits, dim=1), expected)
        else:
            loss = functional.cross_entropy(logits, ratings)
        if self._plan.count_weight:
            error = functional.smooth_l1_loss(log_count, torch.log1p(data.counts[chosen]))
            loss = loss + self._plan.count_weight * error
        return loss


def degrade_crops(rng: np.random.Generator, crops: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Add the motion, ringing and noise of a poorer scan to stored crops.

    Parameters
    ----------
    rng : numpy.random.Generator
    crops : ndarray of uint16, shape (6, 112, 86)

    Returns
    -------
    ndarray of uint16
        Same shape.
    """
    scale = float(np.iinfo(crops.dtype).max)
    has_motion = rng.random() < _MOTION_SHARE
    quality = Imperfections(
        motion_mm=rng.uniform(*_MOTION_MM) if has_motion else 0.0, sampled=rng.uniform(*_SAMPLED)
    )
    noise = np.exp(rng.uniform(*np.log(_NOISE)))
    # Mirror the crop above and below: the Fourier transform would join its top to its bottom.
    margin = crops.shape[1] // 2
    padded = np.pad(crops / scale, ((0, 0), (margin, margin), (0, 0)), mode="symmetric")
    degraded = through_k_space(rng, padded.astype(np.float32), _PIXEL_MM, quality)
    noisy = degraded[:, margin:-margin] + noise * rng.standard_normal(crops.shape)
    return np.rint(np.clip(noisy, 0, 1) * scale).astype(np.uint16)


def augment(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate randomly by up to 30° in either direction and flip both axes at random.

    Parameters
    ----------
    crops : Tensor, shape (n, 1, rows, columns)
    generator : torch.Generator

    Returns
    -------
    Tensor
        Same shape; mirrored beyond the border.
    """
    count, _, rows, columns = crops.shape
    angle = torch.deg2rad((torch.rand(count, generator=generator) * 2 - 1) * _ROTATION_DEG)
    flip = torch.randint(0, 2, (2, count), generator=generator) * 2 - 1
    aspect = rows / columns
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(count)
    # The coordinates of affine_grid run from −1 to 1 along each axis, hence the aspect ratio.
    matrix = torch.stack(
        [
            torch.stack([cos * flip[0], -sin * aspect * flip[0], zero], dim=1),
            torch.stack([sin / aspect * flip[1], cos * flip[1], zero], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(crops.shape), align_corners=False)
    return functional.grid_sample(crops, grid, padding_mode="reflection", align_corners=False)


@torch.no_grad()
def predict(net: RatingNet, crops: Tensor) -> NDArray[np.float32]:
    """Predict the probabilities of the five ratings, shape (n, 5), for crops (n, 1, 112, 86)."""
    net.eval()
    return torch.cat([net(part) for part in crops.split(96)]).numpy()
