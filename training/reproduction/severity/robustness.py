"""CLEVER score: how much a volume can change before the predicted severity can change.

Weng et al., Evaluating the robustness of neural networks: an extreme value theory approach, ICLR
2018. The severity paper gives its mean over the test set for the ℓ₂ norm, but neither the number of
samples nor the radius. This is the only module that uses the Adversarial Robustness Toolbox (ART).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from art.metrics import clever_u
from torch import Tensor, nn

from training.cohorts.examples import volume_as_input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from training.cohorts.examples import Example
    from training.severity.network import SeverityNet

RADIUS: Final = 10.0
"""Largest ℓ₂ distance examined, which is also the highest possible score."""
_SAMPLES: Final = 2
_POOL: Final = 3
_BATCHES: Final = 20
"""Gradients at six points per subject; ART fits the distribution of the maximum of two."""


class _TwoClasses(nn.Module):
    """Network with one logit per class, as ART requires; that of none-to-mild is 0."""

    def __init__(self, net: SeverityNet) -> None:
        super().__init__()
        self._net = net

    def forward(self, volume: Tensor) -> Tensor:
        logit, _ = self._net.heads(volume)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def clever_scores(net: SeverityNet, examples: Sequence[Example], seed: int = 0) -> Iterator[float]:
    """Compute the score of every example: a lower bound of the ℓ₂ distance to the other class.

    Parameters
    ----------
    net : SeverityNet
    examples : sequence of Example
        With volumes of any size.
    seed : int
        Determines the random points at which the gradient is computed.

    Yields
    ------
    float
        From 0 to `RADIUS`, in units of the input: 1 is the difference between black and white in
        one voxel.
    """
    np.random.seed(seed)  # noqa: NPY002 - ART draws from the global generator
    for example in examples:
        volume = volume_as_input(example.volume)
        classifier = PyTorchClassifier(
            _TwoClasses(net).eval(),
            loss=nn.CrossEntropyLoss(),
            input_shape=volume.shape,
            nb_classes=2,
            device_type="cpu",
        )
        yield float(
            clever_u(
                classifier,
                volume,
                nb_batches=_BATCHES,
                batch_size=_SAMPLES,
                radius=RADIUS,
                norm=2,
                pool_factor=_POOL,
                verbose=False,
            )
        )
