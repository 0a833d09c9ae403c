"""Severity network: windowed volume → P(at least ten EPVS) and its Grad-CAM.

Severity paper, Methods: a 3-D residual network of 152 layers. As in the paper's public code a
residual unit is two 3 × 3 × 3 convolutions; the 1 × 1 × 1 convolution is the projection on its
skip path where the shape changes.

After the third stage one of the sixteen slices is left, and the outer planes of a kernel three
planes deep then see only zero padding: at full width 110 of the 173 million weights are multiplied
by nothing else. The network is built without these planes. Its output is the same, and both the
computation and the file are much smaller. `drop_padding` removes the planes from weights of the
published shape.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

INPUT_SHAPE: Final = (1, 16, 512, 512)
UNITS: Final[dict[int, tuple[int, int, int, int]]] = {
    18: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Residual units per stage, by number of layers; the paper compares 50, 101 and 152 layers."""
FULL_WIDTH: Final = 64
"""Filters of the stem and of the first stage in the paper."""
ANY_DEPTH: Final = 1 << 16
"""Depth of input for which every kernel plane is kept."""
_STEM_STRIDES: Final = 2 * 2


def _convolution(inputs: int, outputs: int, stride: int, depth: int) -> nn.Conv3d:
    """3 × 3 × 3 convolution with zero padding, without the planes that see only padding.

    Parameters
    ----------
    inputs, outputs, stride : int
    depth : int
        Planes of the input.
    """
    planes = 3 if depth > stride else depth
    border = (1 if planes == 3 else 0, 1, 1)
    return nn.Conv3d(inputs, outputs, (planes, 3, 3), stride, padding=border, bias=False)


class ResidualUnit(nn.Module):
    """Two 3 × 3 × 3 convolutions with a skip path.

    The scale of the last batch normalisation is initialised to zero, so that an untrained unit is
    the identity. Otherwise training of 50 units in a row does not get started.

    Parameters
    ----------
    inputs, outputs : int
        Filters.
    stride : int
    depth : int
        Planes of the input; `ANY_DEPTH` keeps every plane of the kernels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, depth: int = ANY_DEPTH) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(inputs, outputs, stride, depth),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
            _convolution(outputs, outputs, 1, -(-depth // stride)),
            nn.BatchNorm3d(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps (n, outputs, depth, height, width)."""
        return torch.relu(self.body(x) + self.skip(x))


class SeverityNet(nn.Module):
    """3-D ResNet with a closed-form Grad-CAM.

    Parameters
    ----------
    layers : int
        Key of `UNITS`.
    width : int
        Filters of the stem (paper: 64); later stages have 2, 4 and 8 times as many.
    dropout : float
        Dropout before the last layer (paper: 0.4).
    published : bool
        Keep the kernel planes that see only padding.
    """

    def __init__(
        self,
        layers: int = 152,
        width: int = FULL_WIDTH,
        dropout: float = 0.4,
        *,
        published: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(1, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool3d(3, stride=2, padding=1),
        )
        units: list[nn.Module] = []
        channels = width
        depth = ANY_DEPTH if published else INPUT_SHAPE[1] // _STEM_STRIDES
        for stage, count in enumerate(UNITS[layers]):
            for number in range(count):
                outputs = width * 2**stage
                stride = 2 if stage and not number else 1
                units.append(ResidualUnit(channels, outputs, stride, depth))
                channels, depth = outputs, -(-depth // stride)
        self.units = nn.Sequential(*units)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(channels, 1)
        self.log_count = nn.Linear(channels, 1)
        """Head for the auxiliary target; used in training only and not exported."""
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # Glorot uniform, as in the paper
        for module in self.modules():
            if isinstance(module, ResidualUnit):
                last = module.body[-1]
                assert isinstance(last, nn.BatchNorm3d)  # noqa: S101 - narrows the type
                nn.init.zeros_(last.weight)

    def features(self, volume: Tensor) -> Tensor:
        """Return the last feature map, shape (n, 8 · width, 1, 16, 16) of a full-size volume."""
        return self.units(self.stem(volume))

    def heads(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """Return logit and predicted log(1 + count), both of shape (n,), for training."""
        pooled = self.dropout(self.features(volume).mean(dim=(2, 3, 4)))
        return self.score(pooled)[:, 0], self.log_count(pooled)[:, 0]

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """Compute probability and Grad-CAM.

        Because of the global averaging, the logit is linear in the last feature map A: its
        derivative with respect to every voxel of A_k is w_k / N. Grad-CAM is therefore exactly
        ReLU(Σ_k w_k A_k) / N and needs no gradients.

        Parameters
        ----------
        volume : Tensor, shape (n, 1, 16, 512, 512)

        Returns
        -------
        probability : Tensor, shape (n, 1)
        saliency : Tensor, shape (n, 1, 16, 16)
            Depth, height, width of the last feature map.
        """
        maps = self.features(volume)
        probability = torch.sigmoid(self.score(self.dropout(maps.mean(dim=(2, 3, 4)))))
        weights = self.score.weight[0][:, None, None, None]
        voxels = maps.shape[2] * maps.shape[3] * maps.shape[4]
        saliency = torch.relu((maps * weights).sum(dim=1)) / voxels
        return probability, saliency


def drop_padding(published: dict[str, Tensor], lean: SeverityNet) -> dict[str, Tensor]:
    """Convert weights of the published shape to a network without padding-only planes.

    Parameters
    ----------
    published : dict
        ``state_dict`` of ``SeverityNet(…, published=True)``.
    lean : SeverityNet
        Network of the same size; defines the shapes.

    Returns
    -------
    dict
        For ``lean.load_state_dict``; the output of the network is the same.
    """
    shapes = {name: value.shape for name, value in lean.state_dict().items()}
    return {
        # Kernels are centred, so their first plane lies above the first slice.
        name: value if value.shape == shapes[name] else value[:, :, 1 : 1 + shapes[name][2]]
        for name, value in published.items()
    }
