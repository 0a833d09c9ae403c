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

_FEW: Final = -4.0
"""Bias of the map of EPVS before training: hardly any in a cell."""


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
    counting : bool
        Whether the sum of a map joins the pooled features: a 1 × 1 convolution of the third
        feature map, which learns how much of an EPVS lies in each cell (ours).

    Attributes
    ----------
    temperature : Tensor
        The logits are divided by it before softmax, so that probabilities are frequencies
        (`training.calibration`); it moves no grade.
    """

    temperature: Tensor

    def __init__(
        self,
        filters: Sequence[int] = FILTERS,
        hidden: int = 64,
        dropout: float = 0.2,
        *,
        counting: bool = False,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 1
        for number, count in enumerate(filters):
            pooling = [nn.AvgPool2d(2, ceil_mode=True)] if number else []
            kernel = 3 if number else 5
            blocks.append(
                nn.Sequential(
                    *pooling,
                    nn.Conv2d(channels, count, kernel, padding=kernel // 2, bias=False),
                    nn.BatchNorm2d(count),
                    nn.ReLU(inplace=True),
                )
            )
            channels = count
        self.fine, self.coarse = nn.Sequential(*blocks[:3]), nn.Sequential(*blocks[3:])
        self.places: nn.Module | None = None
        if counting:
            cell = nn.Conv2d(filters[2], 1, 1)
            nn.init.constant_(cell.bias, _FEW)  # type: ignore[arg-type]
            self.places = nn.Sequential(cell, nn.Softplus())
        self.hidden = nn.Sequential(
            nn.Linear(channels + counting, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout)
        )
        self.score = nn.Linear(hidden, RATINGS)
        self.log_count = nn.Linear(hidden, 1)
        """Auxiliary target of training; not part of the exported graph."""
        self.register_buffer("temperature", torch.ones(()))

    def _hidden(self, crops: Tensor) -> tuple[Tensor, Tensor | None]:
        """Output of the first fully connected layer, and the map of EPVS (n, 28, 22)."""
        maps = self.fine(crops)
        pooled = self.coarse(maps).mean(dim=(2, 3))
        if self.places is None:
            return self.hidden(pooled), None
        places = self.places(maps)[:, 0]
        count = places.sum(dim=(1, 2))[:, None]
        return self.hidden(torch.cat([pooled, torch.log(count + 1)], dim=1)), places

    def heads(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Compute what training compares with the truth.

        Returns
        -------
        logits : Tensor, shape (n, 5)
        log_count : Tensor, shape (n,)
            Predicted logarithm of 1 + count.
        places : Tensor, shape (n, 28, 22), optional
            EPVS in each cell of 4 × 4 pixels, of a network that counts.
        """
        hidden, places = self._hidden(crops)
        return self.score(hidden), self.log_count(hidden)[:, 0], places

    def logits(self, crops: Tensor) -> Tensor:
        """Unnormalised log-probabilities, shape (n, 5), of crops (n, 1, 112, 86)."""
        return self.score(self._hidden(crops)[0]) / self.temperature

    def forward(self, crops: Tensor) -> Tensor:
        """Probabilities, shape (n, 5)."""
        return torch.softmax(self.logits(crops), dim=1)
