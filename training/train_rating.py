"""Train the rating model: Adam, cross-entropy, rotations and flips, image by image.

Rating paper, section 2.4.2. Differences: ratings are drawn equally often, the learning rate decays
to zero along a cosine, and the weights kept are those of the epoch with the best accuracy on
validation subjects (every eleventh), which are never trained on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training import checkpoints
from training.datasets import crops_as_input, describe_cohort, is_validation, load_cohort, rating_of
from training.networks.rating import RATINGS, RatingNet

if TYPE_CHECKING:
    from pathlib import Path

_ROTATION_DEG: Final = 30.0


def train_rating(
    cohort: Path, run: Path, *, epochs: int, batch: int = 32, rate: float = 1e-3, threads: int = 1
) -> RatingNet:
    """Train on a stored cohort; goes on from the run's checkpoint if there is one.

    Parameters
    ----------
    cohort, run : Path
        Folder of the cohort; folder of checkpoint and log.
    epochs, batch : int
    rate : float
        Learning rate at the start.
    threads : int

    Returns
    -------
    RatingNet
        With the best weights.
    """
    torch.set_num_threads(threads)
    description = describe_cohort(cohort)
    examples = load_cohort(cohort, volumes=False)
    crops = torch.from_numpy(crops_as_input(np.stack([e.crops for e in examples])))
    ratings = torch.from_numpy(rating_of(np.stack([e.counts for e in examples])))
    validation = torch.from_numpy(is_validation(examples))
    net, state = RatingNet(), checkpoints.load(run)
    optimiser = torch.optim.Adam(net.parameters(), rate)
    first, best, best_weights = 0, -1.0, net.state_dict()
    if state is not None:
        checkpoints.check_cohort(state, description)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        first, best, best_weights = state["epoch"], state["best"], state["best_weights"]
    x, y = crops[~validation].flatten(0, 1), ratings[~validation].flatten()
    weights = 1.0 / torch.bincount(y, minlength=RATINGS).clamp(min=1)[y].double()
    for epoch in range(first, epochs):
        generator = torch.Generator().manual_seed(epoch)
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        order = torch.multinomial(weights, len(y), replacement=True, generator=generator)
        net.train()
        losses = []
        for chosen in order.split(batch):
            loss = functional.cross_entropy(net.logits(augment(x[chosen], generator)), y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        accuracy = image_accuracy(net, crops[validation], ratings[validation])
        if accuracy >= best:
            best = accuracy
            best_weights = {k: v.clone() for k, v in net.state_dict().items()}
        checkpoints.record(run, epoch, loss=float(np.mean(losses)), validation_accuracy=accuracy)
        checkpoints.save(
            run,
            {
                "net": net.state_dict(),
                "optimiser": optimiser.state_dict(),
                "epoch": epoch + 1,
                "best": best,
                "best_weights": best_weights,
                "cohort": description,
            },
        )
    net.load_state_dict(best_weights)
    return net.eval()


def augment(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 30° either way and flip both axes at random.

    Parameters
    ----------
    crops : Tensor, shape (n, 1, rows, columns)
    generator : torch.Generator

    Returns
    -------
    Tensor
        Same shape; the border is mirrored.
    """
    count, _, rows, columns = crops.shape
    angle = torch.deg2rad((torch.rand(count, generator=generator) * 2 - 1) * _ROTATION_DEG)
    flip = torch.randint(0, 2, (2, count), generator=generator) * 2 - 1
    aspect = rows / columns
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(count)
    # affine_grid's coordinates run from −1 to 1 along each axis: rotation needs the aspect ratio.
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
def image_accuracy(net: RatingNet, crops: Tensor, ratings: Tensor) -> float:
    """Share of images with the right rating; `crops` (subjects, 6, 1, 112, 86)."""
    if not len(crops):
        return 0.0
    net.eval()
    predicted = torch.stack([net.logits(subject).argmax(dim=1) for subject in crops])
    return float((predicted == ratings).float().mean())
