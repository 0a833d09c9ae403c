"""How far a volume may be changed before the severity can change: the CLEVER score.

Weng et al., Evaluating the robustness of neural networks: an extreme value theory approach, ICLR
2018. The severity paper gives its mean over the test set for the ℓ₂ norm, without saying how many
samples were drawn and within what radius. The only module that knows the adversarial robustness
toolbox.
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
"""Largest ℓ₂ distance looked at, and largest score."""
_SAMPLES: Final = 2
_POOL: Final = 3
_BATCHES: Final = 20
"""Gradients at six points a subject; ART then fits the distribution of the largest of two."""


class _TwoClasses(nn.Module):
    """Logits of both classes, 0 for none-to-mild: the score needs one output a class."""

    def __init__(self, net: SeverityNet) -> None:
        super().__init__()
        self._net = net

    def forward(self, volume: Tensor) -> Tensor:
        logit, _ = self._net.heads(volume)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def clever_scores(net: SeverityNet, examples: Sequence[Example], seed: int = 0) -> Iterator[float]:
    """Score every example: a lower bound of the ℓ₂ distance to the other answer.

    Parameters
    ----------
    net : SeverityNet
    examples : sequence of Example
        With volumes of any window.
    seed : int
        Of the random points at which the gradient is taken.

    Yields
    ------
    float
        From 0 to `RADIUS`, in units of the input: 1 is the whole way from black to white in one
        voxel.
    """
    np.random.seed(seed)  # noqa: NPY002 - the toolbox draws from the global generator
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
