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
FILTERS: Final = (24, 32, 48, 64, 96)


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
    """

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
        self.classifier = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, RATINGS),
        )

    def logits(self, crops: Tensor) -> Tensor:
        """Unnormalised log-probabilities, shape (n, 5), of crops (n, 1, 112, 86)."""
        return self.classifier(self.features(crops).mean(dim=(2, 3)))

    def forward(self, crops: Tensor) -> Tensor:
        """Probabilities, shape (n, 5)."""
        return torch.softmax(self.logits(crops), dim=1)
