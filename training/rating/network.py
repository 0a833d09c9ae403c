"""Rating network: one basal-ganglia crop → probabilities of the five EPVS ratings.

Rating paper, section 2.4.2: five convolutional layers with ReLU, average pooling rather than max
pooling so that thin structures are preserved, two fully connected layers and softmax. The paper
gives neither filter counts nor kernel sizes; those here are ours.
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
"""Few at full resolution, where most of the time would go: EPVS are simple shapes there."""
WIDE_FILTERS: Final = (16, 32, 64, 64, 96)
"""Of the shipped weights: they are trained once."""


class RatingNet(nn.Module):
    """Five convolutions, average pooling, two fully connected layers.

    Each convolution is followed by batch normalisation, which the paper does not mention, and the
    first four by 2 × 2 average pooling; the last feature map is averaged whole, so that a dot
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
        The logits are divided by it before softmax, so that probabilities are frequencies
        (`training.rating.calibration`); it moves no grade.
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
        """Auxiliary target of training; not part of the exported graph."""
        self.register_buffer("temperature", torch.ones(()))

    def heads(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, shape (n, 5), and predicted logarithm of 1 + count, shape (n,), for training."""
        hidden = self.hidden(self.features(crops).mean(dim=(2, 3)))
        return self.score(hidden), self.log_count(hidden)[:, 0]

    def logits(self, crops: Tensor) -> Tensor:
        """Unnormalised log-probabilities, shape (n, 5), of crops (n, 1, 112, 86)."""
        return self.score(self.hidden(self.features(crops).mean(dim=(2, 3)))) / self.temperature

    def forward(self, crops: Tensor) -> Tensor:
        """Probabilities, shape (n, 5)."""
        return torch.softmax(self.logits(crops), dim=1)
