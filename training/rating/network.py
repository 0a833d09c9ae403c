"""Rating network: one basal-ganglia crop → probabilities of the five EPVS ratings.

Rating paper, section 2.4.2: five convolutional layers with ReLU, average pooling rather than max
pooling so that thin structures are preserved, two fully connected layers and softmax. The paper
gives neither filter counts nor kernel sizes; those here were chosen by this project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

INPUT_SHAPE: Final = (1, 112, 86)
RATINGS: Final = 5
FILTERS: Final = (8, 24, 48, 64, 96)
"""Few at full resolution, which costs most of the time: EPVS are simple shapes there."""
WIDE_FILTERS: Final = (16, 32, 64, 64, 96)
"""Filters of the shipped weights, which need training only once."""


class RatingNet(nn.Module):
    """Five convolutions, average pooling, two fully connected layers.

    Each convolution is followed by batch normalisation, which the paper does not mention, and the
    first four by 2 × 2 average pooling. The last feature map is averaged globally, so that an EPVS
    counts wherever it lies.

    Parameters
    ----------
    filters : sequence of int
        Of the five convolutions.
    hidden : int
        Units of the first fully connected layer.
    dropout : float

    Attributes
    ----------
    temperature : Tensor
        Divides the logits before softmax to calibrate the probabilities
        (`training.rating.calibration`); it does not change the predicted rating.
    """

    temperature: Tensor

    def __init__(
        self, filters: Sequence[int] = FILTERS, hidden: int = 64, dropout: float = 0.2
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for number, count in enumerate(filters):
            if number:
                layers.append(nn.AvgPool2d(2, ceil_mode=True))
            kernel = 5 if number == 0 else 3
            layers += [
                nn.Conv2d(channels, count, kernel, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(count),
                nn.ReLU(inplace=True),
            ]
            channels = count
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout)
        )
        self.score = nn.Linear(hidden, RATINGS)
        self.log_count = nn.Linear(hidden, 1)
        """Head for the auxiliary target; used in training only and not exported."""
        self.register_buffer("temperature", torch.ones(()))

    def heads(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, shape (n, 5), and predicted log(1 + count), shape (n,), for training."""
        hidden = self.hidden(self.features(crops).mean(dim=(2, 3)))
        return self.score(hidden), self.log_count(hidden)[:, 0]

    def logits(self, crops: Tensor) -> Tensor:
        """Return calibrated logits, shape (n, 5), for crops (n, 1, 112, 86)."""
        return self.score(self.hidden(self.features(crops).mean(dim=(2, 3)))) / self.temperature

    def forward(self, crops: Tensor) -> Tensor:
        """Return the probabilities of the five ratings, shape (n, 5)."""
        return torch.softmax(self.logits(crops), dim=1)
